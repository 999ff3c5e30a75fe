package service

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.com/routeguide/server/wire"
)

// takenAtOnce is how much of an answer is written at once, for which there is time.
const takenAtOnce = 16 << 10

// withStallTimeout resets a call whose client takes longer than timeout, unless that is 0, to take 16 KiB of what is written
// to it, or less if less waits, and counts it. A handler is done only when the client has been sent all. What a chat writes
// in frames goes past it: that is watched by the chat's host.
func withStallTimeout(timeout time.Duration, stalled *atomic.Int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		stream, ok := wire.FromContext(request.Context())
		if !ok {
			next.ServeHTTP(response, request)
			return
		}
		taken := &stallWriter{ResponseWriter: response, stream: stream, timeout: timeout, stalled: stalled}
		if request.ProtoMajor > 1 {
			next.ServeHTTP(taken, request)
			taken.finish()
			return
		}
		// A flush would say that more may come. With one call at a time, a deadline is as good.
		controller := http.NewResponseController(response)
		_ = controller.SetWriteDeadline(time.Time{}) // The connection has it from the call before.
		next.ServeHTTP(taken, request)
		if timeout > 0 {
			_ = controller.SetWriteDeadline(time.Now().Add(timeout))
		}
	})
}

// stallWriter is a response that is to be stallWriter. Its methods are called by one goroutine at a time.
type stallWriter struct {
	http.ResponseWriter

	stream  *wire.Stream
	timeout time.Duration
	stalled *atomic.Int64
	timer   *time.Timer // is made by the first write
	waits   bool        // net/http may have something that it has not written

	mu    sync.Mutex // guards the rest
	since time.Time  // when the write began that goes on; zero if there is none
}

// Unwrap is for [http.ResponseController].
func (t *stallWriter) Unwrap() http.ResponseWriter {
	return t.ResponseWriter
}

func (t *stallWriter) Write(p []byte) (int, error) {
	t.waits = true
	for written := 0; ; {
		part := p[written:min(len(p), written+takenAtOnce)]
		n, err := t.write(part)
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

func (t *stallWriter) write(p []byte) (int, error) {
	t.begin()
	defer t.stop()
	return t.ResponseWriter.Write(p)
}

// Flush is for Connect, which does not look for it through Unwrap.
func (t *stallWriter) Flush() {
	if flusher, ok := t.ResponseWriter.(http.Flusher); ok {
		t.begin()
		defer t.stop()
		flusher.Flush()
	}
	t.waits = false
}

// finish writes what net/http would write once the handler has returned, when nobody would watch it.
func (t *stallWriter) finish() {
	if t.waits {
		t.Flush()
	}
}

func (t *stallWriter) begin() {
	if t.timeout == 0 {
		return
	}
	t.set(time.Now())
	if t.timer == nil {
		t.timer = time.AfterFunc(t.timeout, t.reset)
	} else {
		t.timer.Reset(t.timeout)
	}
}

func (t *stallWriter) stop() {
	if t.timer == nil {
		return
	}
	t.timer.Stop()
	t.set(time.Time{})
}

func (t *stallWriter) set(since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since = since
}

// reset ends the call, unless the write that the timer was for has come to its end. Until it returns, no other one
// does, nor the handler.
func (t *stallWriter) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.since.IsZero() && time.Since(t.since) >= t.timeout {
		t.stalled.Add(1)
		_ = t.stream.Reset() // An error says that there is nothing to reset any more.
	}
}
