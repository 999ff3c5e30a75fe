// Package wire gives Connect handlers access to the HTTP stream below them. Connect shows a handler a stream of
// messages and hides the HTTP request; [NewHandler] puts the request's [Stream] into the context. With it a
// handler writes envelopes of encoded messages in batches, sets read deadlines for messages and requests, stops
// reading with a cause while writing goes on, and resets the stream. [NewListener] coalesces the reads and
// writes of a connection, and gives each HTTP/2 stream a flow-control window of its own.
//
// The package works for any Connect service, and does not know the messages.
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

// A Stream is one HTTP request and its response.
type Stream struct {
	ctx            context.Context //nolint:containedctx // A Stream lives as long as its request.
	response       http.ResponseWriter
	controller     *http.ResponseController
	body           *body
	binary         bool // content type of binary Protobuf envelopes
	isHTTP1        bool
	messageTimeout messageTimeout
	timingMessage  bool        // a message deadline is set; used by the reader only
	onEnd          func(error) // callback of AtEnd; may be nil

	mu      sync.Mutex   // guards the fields below
	stop    readDeadline // deadline for all reading
	arrival readDeadline // deadline for the message or request in flight
	timer   *time.Timer  // fires at the earlier deadline
	cause   error        // cause of the deadline that expired first
	done    bool         // the HTTP handler has returned
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

// FromContext returns the stream of the request that ctx belongs to. It returns false if the request did not
// come through [NewHandler].
func FromContext(ctx context.Context) (*Stream, bool) {
	stream, ok := ctx.Value(streamKey{}).(*Stream)
	return stream, ok
}

// isBinary reports whether the content type is a stream of binary Protobuf messages, in one of the three
// protocols.
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

// StopReading stops the reading of the request's body: reads return the data that has arrived, and then cause.
// Writing goes on. An HTTP/1.1 connection carries one request at a time and cannot be reused afterwards.
// StopReading is safe for concurrent use with all other methods, but must not be called after the HTTP handler
// has returned.
func (s *Stream) StopReading(cause error) error {
	return s.StopReadingAt(past, cause)
}

// StopReadingAt is [Stream.StopReading] at a deadline. Of several deadlines the earliest counts.
func (s *Stream) StopReadingAt(deadline time.Time, cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop.isZero() || deadline.Before(s.stop.time) {
		s.stop = readDeadline{deadline, cause}
	}
	return s.applyDeadlines()
}

// SetRequestDeadline is [Stream.StopReadingAt] for the whole request: the deadline is lifted once the request
// has arrived in full.
func (s *Stream) SetRequestDeadline(deadline time.Time, cause error) error {
	s.body.onEOF = func() { _ = s.setArrival(readDeadline{}) }
	return s.setArrival(readDeadline{deadline, cause})
}

// setArrival sets the deadline for the message or request in flight. The zero deadline lifts it, unless it has
// expired.
func (s *Stream) setArrival(deadline readDeadline) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrival = deadline
	return s.applyDeadlines()
}

// readDeadline is a deadline for reads. The zero value is no deadline.
type readDeadline struct {
	time  time.Time
	cause error // error of reads after the deadline
}

func (d readDeadline) isZero() bool { return d.time.IsZero() }

// applyDeadlines stops reading if the earlier deadline has expired, and otherwise sets the timer to it. The
// caller holds s.mu.
//
// net/http gets a deadline only after it has expired. Its own timer for a future deadline outlives a reset of
// the stream, and would keep the stream and its received data in memory until then.
func (s *Stream) applyDeadlines() error {
	first := s.stop
	if first.isZero() || !s.arrival.isZero() && s.arrival.time.Before(first.time) {
		first = s.arrival
	}
	if s.done || s.cause != nil {
		return nil //nolint:nilerr // The cause is for the reader; nothing is left to do here.
	}
	wait := time.Until(first.time)
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

// readError returns the error for a read of the body that failed with err: the cause of the expired deadline,
// if there is one.
func (s *Stream) readError(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return s.cause
	}
	return err
}

// past is a deadline that has expired.
var past = time.Unix(1, 0)

func (s *Stream) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.applyDeadlines() // It fails if the connection does not support read deadlines.
}

// unreadBodyTimeout bounds the arrival of an HTTP/1.1 request body that the handler has not read. net/http reads
// the rest of the body before it sends the response.
const unreadBodyTimeout = 5 * time.Second

// ErrGone is the error of a response that cannot reach its client.
var ErrGone = errors.New("response not delivered: stream reset or connection closed")

// Gone returns [ErrGone] if the stream was reset or the connection has ended. With HTTP/1.1 it returns nil: the
// end of the connection may be a half-close by a client that still reads.
func (s *Stream) Gone() error {
	if !s.isHTTP1 && s.ctx.Err() != nil {
		return ErrGone
	}
	return nil
}

// AtEnd registers a callback for the end of the HTTP handler. Its argument is nil if the whole response was
// written to the connection, and otherwise an error that wraps [ErrGone]. AtEnd must be called by the handler's
// goroutine, which also runs the callback.
func (s *Stream) AtEnd(report func(gone error)) {
	s.onEnd = report
}

// flushResponse writes the part of the response that net/http has buffered. It returns the error that AtEnd
// reports.
func (s *Stream) flushResponse() error {
	if err := s.controller.Flush(); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return s.Gone()
}

// end runs when the HTTP handler has returned.
func (s *Stream) end() {
	if s.onEnd != nil {
		s.onEnd(s.flushResponse())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.isHTTP1 {
		_ = s.controller.SetReadDeadline(time.Now().Add(unreadBodyTimeout)) // As in expire.
	}
}

var errReset = errors.New("stream reset by the server")

// Reset resets the stream: blocked and later writes return an error. With HTTP/1.1 it ends the connection. The
// rules for calls of [Stream.StopReading] apply.
func (s *Stream) Reset() error {
	err := s.StopReading(errReset)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return err
	}
	return errors.Join(err, s.controller.SetWriteDeadline(past))
}
