// Package wire is what is between Connect and the socket. Connect hands a handler a stream of
// messages, and hides the HTTP request below; this package hands the handler that request's side
// of the connection, in the context. It knows nothing of the messages that are sent.
package wire

import (
	"context"
	"net/http"
	"time"
)

type streamKey struct{}

// A Stream is one HTTP request on its connection. Its methods may be called concurrently.
type Stream struct {
	controller *http.ResponseController
}

// NewHandler returns a handler that calls next with a context in which [FromContext] finds the
// request's stream.
func NewHandler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		stream := &Stream{controller: http.NewResponseController(response)}
		next.ServeHTTP(response, request.WithContext(context.WithValue(request.Context(), streamKey{}, stream)))
	})
}

// FromContext returns the stream of the request that ctx belongs to. Its second result is false if
// the request did not come through [NewHandler].
func FromContext(ctx context.Context) (*Stream, bool) {
	stream, ok := ctx.Value(streamKey{}).(*Stream)
	return stream, ok
}

// StopReading ends the reading of the request's body: what has arrived can still be read, then
// comes an error. Writing goes on as before. With HTTP/1.1, where a connection has one request at a
// time, the connection cannot be used again. It must not be called once the HTTP handler has
// returned.
func (s *Stream) StopReading() error {
	return s.controller.SetReadDeadline(time.Unix(1, 0))
}
