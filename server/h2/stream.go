package h2

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// stream is one request and its response. The fields are guarded by the connection's lock, unless they say otherwise.
type stream struct {
	conn *conn

	// Response. These fields lie together at the start for TryWrite, which finds most streams in no cache.
	id         uint32
	sendWindow int64 // bytes of DATA that the client takes
	outErr     error // error of writes; set when the stream is closed
	sending    bool  // a Write of the handler is in progress
	begun      bool  // the response headers are queued
	hasBody    bool  // DATA may follow them
	finished   bool  // the response is complete, while the client still sends
	tooLarge   bool  // the request's header list exceeds the limit
	writable   sync.Cond
	outTimer   *time.Timer // write deadline; nil if none was set

	request *http.Request           // owned by the handler
	cancel  context.CancelCauseFunc // of the request's context

	// Request body. The client may send window more bytes of DATA. What has arrived and was not taken by the handler is in arrived. After
	// that, reads return inErr.
	readable sync.Cond
	arrived  []byte
	window   int
	padding  int   // bytes of padding received since the last WINDOW_UPDATE for it
	length   int64 // declared Content-Length that has not arrived; -1 if it was not declared
	inErr    error // io.EOF after END_STREAM
	taken    int   // bytes that the handler has taken and Server.Unread counts
	lapsed   error // os.ErrDeadlineExceeded after the read deadline
	trailer  http.Header
	dropping bool        // the body was closed: what arrives is dropped
	inTimer  *time.Timer // read deadline; nil if none was set

	// The handler owns these fields. It reads from reading, which it has taken from arrived.
	reading   []byte
	readAt    int  // start of what was not read
	consumed  int  // bytes read since the last WINDOW_UPDATE
	counted   int  // bytes read that Server.Unread still counts, unless the handler has returned
	expects   bool // the client waits for 100 Continue
	response  response
	smallBody [smallBytes]byte // backs arrived or reading while the client sends little
}

// errHandlerDone is the error of a stream whose handler has returned.
var errHandlerDone = errors.New("the handler has returned")

// StreamError is the error of reads and writes, and the cause of the context, of a stream that was reset.
type StreamError struct {
	// Code is the error code of the RST_STREAM frame.
	Code http2.ErrCode
	// ByClient is whether the client sent it.
	ByClient bool
}

func (e *StreamError) Error() string {
	by := "server"
	if e.ByClient {
		by = "client"
	}
	return fmt.Sprintf("stream reset by the %s: %v", by, e.Code)
}

// Is makes a StreamError a [context.Canceled], as the error of the request's context is.
func (e *StreamError) Is(target error) bool { return target == context.Canceled }

// abort ends the stream with a cause, without a frame: reads return what has arrived and then the cause, writes return the cause. The
// caller holds c.mu and takes the stream out of c.streams.
func (s *stream) abort(cause error) {
	if s.inErr == nil {
		s.inErr = cause
	}
	if s.outErr == nil {
		s.outErr = cause
	}
	s.cancel(cause)
	s.readable.Broadcast()
	s.writable.Broadcast()
}

// drop removes a stream that is closed. The caller holds c.mu.
func (c *conn) drop(s *stream) {
	delete(c.streams, s.id)
	c.endIfDone()
}

// resetStream ends a stream with RST_STREAM. The caller holds c.mu.
func (c *conn) resetStream(s *stream, code http2.ErrCode) {
	if c.streams[s.id] != s {
		return
	}
	c.drop(s)
	c.reset.add(s.id)
	s.abort(&StreamError{Code: code})
	c.output.appendReset(s.id, code)
	c.startWriter()
}

// serve runs the handler. A silent stream waits in it, so the frame on the stack is small.
func (s *stream) serve() {
	defer s.recover()
	s.handler().ServeHTTP((*responseWriter)(s), s.request)
	(*responseWriter)(s).finish()
}

func (s *stream) handler() http.Handler {
	if s.tooLarge {
		return http.HandlerFunc(headerTooLarge)
	}
	return s.conn.server.Handler
}

func headerTooLarge(response http.ResponseWriter, _ *http.Request) {
	http.Error(response, "The request's header fields are too large.", http.StatusRequestHeaderFieldsTooLarge)
}

// recover ends the stream when the handler has returned, or panicked.
func (s *stream) recover() {
	c := s.conn
	value := recover()
	if value != nil && value != http.ErrAbortHandler { //nolint:errorlint // A panic with this very value is asked for.
		c.server.Logger.Error("panic in a handler", "path", s.request.URL.Path, "client", c.remoteAddr, "panic", value, "stack", string(debug.Stack()))
	}
	c.mu.Lock()
	if !s.finished {
		c.resetStream(s, http2.ErrCodeInternal) // It is still open after a panic, or runtime.Goexit.
	}
	s.release()
	c.handlers--
	c.endIfDone()
	c.mu.Unlock()
	c.reportState()
	c.running.Done()
}

// release gives back what the stream holds when its handler has ended. The caller holds c.mu.
func (s *stream) release() {
	s.abort(errHandlerDone)
	s.conn.server.unread.Add(-int64(len(s.arrived) + s.taken))
	s.putBuffer(s.arrived) // Not s.reading: a goroutine of the handler may read on, as those of httputil.ReverseProxy do.
	s.arrived, s.taken = nil, 0
	s.dropping = true
	for _, timer := range []*time.Timer{s.inTimer, s.outTimer} {
		if timer != nil {
			timer.Stop()
		}
	}
	s.response.held = nil
}

// setReadDeadline sets the deadline of reads. The zero time is none.
func (s *stream) setReadDeadline(deadline time.Time) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.lapsed != nil && errors.Is(s.lapsed, os.ErrDeadlineExceeded) {
		s.lapsed = nil
	}
	s.setDeadline(&s.inTimer, deadline, func() {
		if s.lapsed == nil {
			s.lapsed = os.ErrDeadlineExceeded
		}
		s.readable.Broadcast()
	})
}

// setWriteDeadline sets the time at which the stream is reset. The zero time is none.
func (s *stream) setWriteDeadline(deadline time.Time) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.setDeadline(&s.outTimer, deadline, func() { s.conn.resetStream(s, http2.ErrCodeInternal) })
}

// setDeadline replaces a deadline by another one, at which it calls lapse with the lock of the connection held: at once, if it has passed.
// The caller holds c.mu.
func (s *stream) setDeadline(timer **time.Timer, deadline time.Time, lapse func()) {
	if *timer != nil {
		(*timer).Stop()
		*timer = nil
	}
	switch wait := time.Until(deadline); {
	case deadline.IsZero():
	case wait <= 0:
		lapse()
	default:
		var set *time.Timer
		set = time.AfterFunc(wait, func() {
			s.conn.mu.Lock()
			defer s.conn.mu.Unlock()
			if *timer == set { // It was not replaced meanwhile.
				lapse()
			}
		})
		*timer = set
	}
}
