package service

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.com/routeguide/server/wire"
)

// takenWithin resets a call whose client does not take what is written to it, be it a single byte, for as long as
// timeout, and counts it. What a chat writes in frames goes past it: that is watched by the chat's host.
func takenWithin(timeout time.Duration, stalled *atomic.Int64, next http.Handler) http.Handler {
	if timeout == 0 {
		return next
	}
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		stream, ok := wire.FromContext(request.Context())
		if !ok {
			next.ServeHTTP(response, request)
			return
		}
		if request.ProtoMajor == 1 {
			_ = stream.StopWritingAt(time.Time{}) // The connection has it from the request before.
		}
		taken := &taken{ResponseWriter: response, stream: stream, timeout: timeout, stalled: stalled}
		defer taken.end()
		next.ServeHTTP(taken, request)
	})
}

// taken is a response that is to be taken. Its methods are called by one goroutine at a time.
type taken struct {
	http.ResponseWriter

	stream  *wire.Stream
	timeout time.Duration
	stalled *atomic.Int64
	timer   *time.Timer // is made by the first write

	mu    sync.Mutex // guards the rest
	since time.Time  // when the write began that goes on; zero if there is none
}

// Unwrap is for [http.ResponseController].
func (t *taken) Unwrap() http.ResponseWriter {
	return t.ResponseWriter
}

func (t *taken) Write(p []byte) (int, error) {
	t.begin()
	defer t.stop()
	return t.ResponseWriter.Write(p)
}

// Flush is for Connect, which does not look for it through Unwrap.
func (t *taken) Flush() {
	if flusher, ok := t.ResponseWriter.(http.Flusher); ok {
		t.begin()
		defer t.stop()
		flusher.Flush()
	}
}

func (t *taken) begin() {
	t.set(time.Now())
	if t.timer == nil {
		t.timer = time.AfterFunc(t.timeout, t.reset)
	} else {
		t.timer.Reset(t.timeout)
	}
}

func (t *taken) stop() {
	t.timer.Stop()
	t.set(time.Time{})
}

func (t *taken) set(since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = since
}

// reset ends the call, unless the write that the timer was for has come to its end. Until it returns, no other one
// does, nor the handler.
func (t *taken) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.since.IsZero() && time.Since(t.since) >= t.timeout {
		t.stalled.Add(1)
		_ = t.stream.Reset() // An error says that there is nothing to reset any more.
	}
}

// end is for what the handler leaves net/http to write.
func (t *taken) end() {
	_ = t.stream.StopWritingAt(time.Now().Add(t.timeout)) // As in reset.
}
