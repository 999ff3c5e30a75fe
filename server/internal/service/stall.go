package service

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.com/routeguide/server/wire"
)

// stallChunk is the part of a response, in bytes, that the client must read before the timeout.
const stallChunk = 16 << 10

// withStallTimeout is a watchdog for slow consumers: it resets a call, and counts it in stalled, if a write of
// up to 16 KiB of the response blocks for longer than timeout. A timeout of 0 is no limit. The handler returns
// only after the whole response was written. Envelopes of chats bypass it: package chat watches those.
func withStallTimeout(timeout time.Duration, stalled *atomic.Int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		stream, ok := wire.FromContext(request.Context())
		if !ok {
			next.ServeHTTP(response, request)
			return
		}
		writer := &stallWriter{ResponseWriter: response, stream: stream, timeout: timeout, stalled: stalled}
		if request.ProtoMajor > 1 {
			next.ServeHTTP(writer, request)
			writer.finish()
			return
		}
		// A flush would make the response chunked. An HTTP/1.1 connection serves one call at a time, so a write
		// deadline of the connection does as well.
		controller := http.NewResponseController(response)
		_ = controller.SetWriteDeadline(time.Time{}) // Clears the deadline of the connection's previous call.
		next.ServeHTTP(writer, request)
		if timeout > 0 {
			_ = controller.SetWriteDeadline(time.Now().Add(timeout))
		}
	})
}

// stallWriter is a response writer that resets the stream when a write or flush stalls. Its methods are called
// by one goroutine at a time.
type stallWriter struct {
	http.ResponseWriter

	stream    *wire.Stream
	timeout   time.Duration
	stalled   *atomic.Int64
	timer     *time.Timer // created by the first write
	unflushed bool        // net/http may have buffered a part of the response

	mu         sync.Mutex // guards the field below
	writeStart time.Time  // start of the write or flush in flight; zero if there is none
}

// Unwrap implements the interface of [http.ResponseController].
func (w *stallWriter) Unwrap() http.ResponseWriter {
	return w.ResponseWriter
}

func (w *stallWriter) Write(p []byte) (int, error) {
	w.unflushed = true
	for written := 0; ; {
		part := p[written:min(len(p), written+stallChunk)]
		n, err := w.write(part)
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

func (w *stallWriter) write(p []byte) (int, error) {
	w.startWatch()
	defer w.stopWatch()
	return w.ResponseWriter.Write(p)
}

// Flush implements [http.Flusher] for Connect, which does not call Unwrap.
func (w *stallWriter) Flush() {
	if flusher, ok := w.ResponseWriter.(http.Flusher); ok {
		w.startWatch()
		defer w.stopWatch()
		flusher.Flush()
	}
	w.unflushed = false
}

// finish flushes the response while the watchdog runs. net/http would flush it after the handler has returned,
// without a timeout.
func (w *stallWriter) finish() {
	if w.unflushed {
		w.Flush()
	}
}

func (w *stallWriter) startWatch() {
	if w.timeout == 0 {
		return
	}
	w.setWriteStart(time.Now())
	if w.timer == nil {
		w.timer = time.AfterFunc(w.timeout, w.expire)
	} else {
		w.timer.Reset(w.timeout)
	}
}

func (w *stallWriter) stopWatch() {
	if w.timer == nil {
		return
	}
	w.timer.Stop()
	w.setWriteStart(time.Time{})
}

func (w *stallWriter) setWriteStart(start time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writeStart = start
}

// expire resets the stream, unless the write that the timer was set for has returned. It holds mu throughout,
// so that neither another write nor the handler returns before it.
func (w *stallWriter) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.writeStart.IsZero() && time.Since(w.writeStart) >= w.timeout {
		w.stalled.Add(1)
		_ = w.stream.Reset() // It fails if the connection has ended: then there is nothing to reset.
	}
}
