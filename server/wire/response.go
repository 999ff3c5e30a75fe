package wire

import (
	"errors"
	"net/http"
	"os"
	"time"
)

// chunkBytes is the part of a response, in bytes, that must be written within the stall timeout.
const chunkBytes = 32 << 10

// responseWriter is the response of a [Stream] for its HTTP handler. The watchdog sees its writes and flushes.
type responseWriter Stream

// Header implements [http.ResponseWriter].
func (w *responseWriter) Header() http.Header { return w.response.Header() }

// WriteHeader implements [http.ResponseWriter].
func (w *responseWriter) WriteHeader(status int) { w.response.WriteHeader(status) }

// Unwrap is for [http.ResponseController].
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.response }

// Write implements [http.ResponseWriter].
func (w *responseWriter) Write(p []byte) (int, error) {
	return (*Stream)(w).write(p)
}

// Flush implements [http.Flusher] for Connect, which does not call Unwrap.
func (w *responseWriter) Flush() {
	_ = (*Stream)(w).flush() // Writes return the error.
}

// FlushError is for [http.ResponseController].
func (w *responseWriter) FlushError() error {
	return (*Stream)(w).flush()
}

// write writes a part of the response in chunks whose progress the watchdog sees.
func (s *Stream) write(p []byte) (int, error) {
	s.unflushed = true
	for written := 0; ; {
		s.progress.Add(1)
		n, err := s.response.Write(p[written:min(len(p), written+chunkBytes)])
		s.progress.Add(1)
		if written += n; err != nil {
			return written, s.writeError(err)
		}
		if written == len(p) {
			return written, nil
		}
	}
}

// flush writes what the HTTP server has buffered.
func (s *Stream) flush() error {
	s.unflushed = false
	s.progress.Add(1)
	err := s.controller.Flush()
	s.progress.Add(1)
	if err != nil {
		return s.writeError(err)
	}
	return nil
}

// writeError returns the error of a write that failed with err: the cause for which the stream was reset, if it was. A write that exceeded
// a deadline of the HTTP server failed because of a slow consumer, too: one that reads nothing from its connection.
func (s *Stream) writeError(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resetCause == nil && errors.Is(err, os.ErrDeadlineExceeded) {
		s.resetCause = ErrStalled
		s.streams.stalled.Add(1)
	}
	if s.resetCause != nil {
		return s.resetCause
	}
	return err
}

// flushRest writes the rest of the response when the HTTP handler has returned, while the watchdog still sees it.
func (s *Stream) flushRest(stallTimeout time.Duration) {
	if s.isHTTP1 && stallTimeout > 0 {
		// The connection carries one request at a time, so its deadline does as well.
		_ = s.controller.SetWriteDeadline(time.Now().Add(stallTimeout))
	}
	switch {
	case s.onEnd != nil:
		s.onEnd(s.flushResponse())
	case s.unflushed && !s.isHTTP1: // There, a flush would make the response chunked.
		_ = s.flush() // The client gets no response, and that is all that can be done.
	}
}
