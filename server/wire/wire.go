// Package wire is what is between Connect and the socket. Connect hands a handler a stream of
// messages, and hides the HTTP request below; this package hands the handler that request's side
// of the connection, in the context: to write frames that are encoded already, many at once, and to
// end the reading of a stream while its writing goes on. A listener that reads and writes less often, and that
// keeps the streams of a connection out of each other's way, goes with it.
//
// It works for any Connect service, and knows nothing of the messages that are sent.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

type streamKey struct{}

// A Stream is one HTTP request on its connection.
type Stream struct {
	ctx        context.Context //nolint:containedctx // It stands for a request, and this is that request's.
	response   http.ResponseWriter
	controller *http.ResponseController
	body       *body
	binary     bool
	isHTTP1    bool
	messages   messageDeadline
	arriving   bool        // a message has a deadline; only the reader uses it
	atEnd      func(error) // is called once the HTTP handler has returned, unless it is nil

	deadlines sync.Mutex // guards the rest
	// stop is when reading ends for good, and arrive when what has begun to arrive must be there.
	stop, arrive readDeadline
	timer        *time.Timer // for the first of them
	cause        error       // of the one that has passed first
	over         bool        // the HTTP handler has returned
}

// NewHandler returns a handler that calls next with a context in which [FromContext] finds the
// request's stream.
func NewHandler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		stream := &Stream{
			ctx:        request.Context(),
			response:   response,
			controller: http.NewResponseController(response),
			body:       newBody(request.Body),
			binary:     isBinary(request.Header.Get("Content-Type")),
			isHTTP1:    request.ProtoMajor == 1,
		}
		request = request.WithContext(context.WithValue(request.Context(), streamKey{}, stream))
		request.Body = stream.body
		stream.body.stream = stream
		defer stream.end()
		next.ServeHTTP(response, request)
	})
}

// FromContext returns the stream of the request that ctx belongs to. Its second result is false if
// the request did not come through [NewHandler].
func FromContext(ctx context.Context) (*Stream, bool) {
	stream, ok := ctx.Value(streamKey{}).(*Stream)
	return stream, ok
}

// isBinary returns whether a content type is that of a stream of binary Protobuf messages, in one of
// the three protocols.
func isBinary(contentType string) bool {
	switch contentType {
	case "application/grpc", "application/grpc+proto",
		"application/grpc-web", "application/grpc-web+proto",
		"application/connect+proto":
		return true
	default:
		return false
	}
}

// StopReading ends the reading of the request's body: what has arrived can still be read, and then reads
// return cause. Writing goes on as before. With HTTP/1.1, where a connection has one request at a
// time, the connection cannot be used again. It may be called concurrently with all else, but not once
// the HTTP handler has returned.
func (s *Stream) StopReading(cause error) error {
	return s.StopReadingAt(past, cause)
}

// StopReadingAt is [Stream.StopReading] at some time to come. Of several such times, the first counts.
func (s *Stream) StopReadingAt(deadline time.Time, cause error) error {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	if s.stop.isZero() || deadline.Before(s.stop.at) {
		s.stop = readDeadline{deadline, cause}
	}
	return s.applyDeadlines()
}

// SetRequestDeadline is [Stream.StopReadingAt] for a request that must have arrived whole by then. Once it has, the
// deadline is lifted.
func (s *Stream) SetRequestDeadline(deadline time.Time, cause error) error {
	s.body.atEnd = func() { _ = s.setArrive(readDeadline{}) }
	return s.setArrive(readDeadline{deadline, cause})
}

// setArrive sets the deadline for what has begun to arrive. The zero deadline lifts it, unless it has passed.
func (s *Stream) setArrive(deadline readDeadline) error {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	s.arrive = deadline
	return s.applyDeadlines()
}

// readDeadline is when reading ends, and the error that reads return then. The zero value is none.
type readDeadline struct {
	at    time.Time
	cause error
}

func (d readDeadline) isZero() bool { return d.at.IsZero() }

// applyDeadlines ends reading if the first of the deadlines has passed, and otherwise sets a timer for it. The
// caller holds s.deadlines.
//
// net/http is told of a deadline only when it has passed: it would make a timer for one to come even after the client
// has reset the stream, and that timer would keep the stream, with what was sent on it, until then.
func (s *Stream) applyDeadlines() error {
	first := s.stop
	if first.isZero() || !s.arrive.isZero() && s.arrive.at.Before(first.at) {
		first = s.arrive
	}
	if s.over || s.cause != nil {
		return nil //nolint:nilerr // The cause is for who reads, and nothing is left to do here.
	}
	wait := time.Until(first.at)
	switch {
	case first.isZero():
		if s.timer != nil {
			s.timer.Stop()
		}
	case wait <= 0:
		s.cause = first.cause
		return s.controller.SetReadDeadline(past)
	case s.timer == nil:
		s.timer = time.AfterFunc(wait, s.expire)
	default:
		s.timer.Reset(wait)
	}
	return nil
}

// readError returns err, with which a read of the body has ended, or why reading was ended.
func (s *Stream) readError(err error) error {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	if s.cause != nil {
		return s.cause
	}
	return err
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

func (s *Stream) expire() {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	_ = s.applyDeadlines() // An error says that the connection has no read deadlines.
}

// restTimeout is how long the rest of a request may take to arrive over HTTP/1.1 that the handler has not read. net/http
// reads it before it sends the response.
const restTimeout = 5 * time.Second

// ErrGone says that a response cannot reach its client any more.
var ErrGone = errors.New("the response was not taken: the stream was reset, or the connection has ended")

// Gone returns nil, or [ErrGone] if the stream was reset or the connection has ended. With HTTP/1.1 it
// returns nil: what looks like the end of the connection may be a client that still reads.
func (s *Stream) Gone() error {
	if !s.isHTTP1 && s.ctx.Err() != nil {
		return ErrGone
	}
	return nil
}

// AtEnd has report called once the HTTP handler has returned: with nil if all that the handler has written was written
// to the connection, and otherwise with an error that wraps [ErrGone]. It is for the handler's goroutine, which calls
// report, too.
func (s *Stream) AtEnd(report func(gone error)) {
	s.atEnd = report
}

// written writes what net/http has gathered of the response. It returns an error as AtEnd says.
func (s *Stream) written() error {
	if err := s.controller.Flush(); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return s.Gone()
}

// end is for when the HTTP handler returns.
func (s *Stream) end() {
	if s.atEnd != nil {
		s.atEnd(s.written())
	}
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.isHTTP1 {
		_ = s.controller.SetReadDeadline(time.Now().Add(restTimeout)) // As in expire.
	}
}

var errReset = errors.New("the stream was reset by its own side")

// Reset ends the stream at once: a write that blocks, and any later one, returns an error. With HTTP/1.1 that is
// the connection. It may be called like [Stream.StopReading].
func (s *Stream) Reset() error {
	err := s.StopReading(errReset)
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	if s.over {
		return err
	}
	return errors.Join(err, s.controller.SetWriteDeadline(past))
}
