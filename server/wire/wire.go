// Package wire gives Connect handlers access to the HTTP stream below them. Connect shows a handler a stream of
// messages and hides the HTTP request; [Streams] put the request's [Stream] into the context. With it a
// handler reads and writes envelopes of encoded messages, in batches, sets read deadlines for messages and requests, stops
// reading with a cause while writing goes on, and resets the stream. A watchdog resets the streams of slow consumers.
//
// The package works for any Connect service and on any HTTP server, and does not know the messages. It is fastest on package h2.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

type streamKey struct{}

// A Stream is one HTTP request and its response.
type Stream struct {
	streams        *Streams
	ctx            context.Context //nolint:containedctx // A Stream lives as long as its request.
	response       http.ResponseWriter
	controller     *http.ResponseController
	body           body
	binary         bool // content type of binary Protobuf envelopes
	isHTTP1        bool
	messageTimeout messageTimeout
	timingMessage  bool        // a message deadline is set; used by the reader only
	unflushed      bool        // the HTTP server may have buffered a part of the response; used by the writer only
	onEnd          func(error) // callback of AtEnd; may be nil

	// progress counts the beginnings and ends of writes: it is odd while one is in flight. The watchdog owns its last sample, and the
	// number of samples since then that were the same.
	progress  atomic.Uint64
	sampled   uint64
	unchanged int

	mu         sync.Mutex   // guards the fields below
	stop       readDeadline // deadline for all reading
	arrival    readDeadline // deadline for the message or request in flight
	timer      *time.Timer  // fires at the earlier deadline
	cause      error        // cause of the deadline that expired first
	resetCause error        // cause of the first reset
	received   bool         // the handler has read the request to its end
	done       bool         // the HTTP handler has returned
}

// newStream returns the stream of a request, and the request for the handler, in whose context it is.
func newStream(streams *Streams, response http.ResponseWriter, request *http.Request) (*Stream, *http.Request) {
	stream := &Stream{
		streams:    streams,
		ctx:        request.Context(),
		response:   response,
		controller: http.NewResponseController(response),
		binary:     isBinary(request.Header.Get("Content-Type")),
		isHTTP1:    request.ProtoMajor == 1,
	}
	stream.body = body{inner: request.Body, stream: stream}
	stream.body.envelopes, _ = request.Body.(peeker)
	if stream.isHTTP1 {
		_ = stream.controller.SetWriteDeadline(time.Time{}) // That of the connection's last request.
	}
	request = request.WithContext(context.WithValue(request.Context(), streamKey{}, stream))
	request.Body = &stream.body
	return stream, request
}

// FromContext returns the stream of the request that ctx belongs to. It returns false if the request did not
// come through [Streams].
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
// the stream, and would keep the stream and its received data in memory until then. It gets none after the end of
// the request: on HTTP/1.1 it watches the connection by then, and an expired deadline would cancel the contexts of
// all later requests on it.
func (s *Stream) applyDeadlines() error {
	first := s.stop
	if first.isZero() || !s.arrival.isZero() && s.arrival.time.Before(first.time) {
		first = s.arrival
	}
	if s.done || s.received || s.cause != nil {
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

// endRequest lifts all deadlines: the handler has read the request to its end.
func (s *Stream) endRequest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = true
	if s.timer != nil {
		s.timer.Stop()
	}
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
	if err := s.flush(); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return s.Gone()
}

// end runs when the HTTP handler has returned.
func (s *Stream) end() {
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
	return s.reset(errReset)
}

// reset is Reset with the error of writes.
func (s *Stream) reset(cause error) error {
	err := s.StopReading(cause)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return err
	}
	if s.resetCause == nil {
		s.resetCause = cause
	}
	return errors.Join(err, s.controller.SetWriteDeadline(past))
}
