package service

import (
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/wire"
)

var errRequestTimeout = connect.NewError(connect.CodeDeadlineExceeded, errors.New("read request: timed out before it arrived in full"))

// withRequestTimeout stops the reading of a request that has not arrived in full before the timeout. It does not
// apply to RouteChat and RecordRoute, which read messages for as long as the client sends them.
func withRequestTimeout(timeout time.Duration, next http.Handler) http.Handler {
	if timeout == 0 {
		return next
	}
	return &requestTimeout{timeout, next}
}

type requestTimeout struct {
	timeout time.Duration
	next    http.Handler
}

// ServeHTTP implements [http.Handler].
func (t *requestTimeout) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	t.setDeadline(request)
	t.next.ServeHTTP(response, request)
}

func (t *requestTimeout) setDeadline(request *http.Request) {
	switch request.URL.Path {
	case routeguideconnect.RouteGuideRouteChatProcedure, routeguideconnect.RouteGuideRecordRouteProcedure:
		return
	}
	if stream, ok := wire.FromContext(request.Context()); ok {
		// It fails if the connection does not support read deadlines; then there is no timeout.
		_ = stream.SetRequestDeadline(time.Now().Add(t.timeout), errRequestTimeout)
	}
}
