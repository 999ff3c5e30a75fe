package service

import (
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/wire"
)

var errRequestTimeout = connect.NewError(connect.CodeDeadlineExceeded, errors.New("the request was begun, and did not arrive in time"))

// withRequestTimeout ends the reading of a request that has not arrived whole in time. Those RPCs are left alone in
// which a client may send messages for as long as it likes.
func withRequestTimeout(timeout time.Duration, next http.Handler) http.Handler {
	if timeout == 0 {
		return next
	}
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		switch request.URL.Path {
		case routeguideconnect.RouteGuideRouteChatProcedure, routeguideconnect.RouteGuideRecordRouteProcedure:
		default:
			if stream, ok := wire.FromContext(request.Context()); ok {
				// An error says that the connection has no read deadlines, and then it has no timeouts.
				_ = stream.SetRequestDeadline(time.Now().Add(timeout), errRequestTimeout)
			}
		}
		next.ServeHTTP(response, request)
	})
}
