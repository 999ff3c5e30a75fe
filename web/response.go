package web

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// chunkBytes is what a client must read within the stall timeout.
const chunkBytes = 32 << 10

// responseWriter has a write deadline for each chunk, so that a slow consumer does not hold a goroutine and a connection for ever, while a steady
// reader may take as long as it needs. A handler uses it.
type responseWriter struct {
	http.ResponseWriter

	controller   *http.ResponseController
	stallTimeout time.Duration
	length       int // Content-Length of the whole in gzip, which [http.ServeContent] does not set; 0 otherwise
}

func newResponseWriter(response http.ResponseWriter, stallTimeout time.Duration) *responseWriter {
	return &responseWriter{ResponseWriter: response, controller: http.NewResponseController(response), stallTimeout: stallTimeout}
}

// WriteHeader implements [http.ResponseWriter].
func (w *responseWriter) WriteHeader(status int) {
	if status == http.StatusOK && w.length > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(w.length))
	}
	w.extendDeadline()
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *responseWriter) Write(content []byte) (int, error) {
	written := 0
	for chunk := range slices.Chunk(content, chunkBytes) {
		w.extendDeadline()
		n, err := w.ResponseWriter.Write(chunk)
		if written += n; err != nil {
			return written, err
		}
	}
	return written, nil
}

// extendDeadline sets the write deadline for what is written next. It stays in force after the last chunk, until the server has flushed that.
func (w *responseWriter) extendDeadline() {
	if w.stallTimeout > 0 {
		_ = w.controller.SetWriteDeadline(time.Now().Add(w.stallTimeout)) // A server without deadlines has limits of its own.
	}
}

// flush waits until the connection has taken what was written. Otherwise the server would wait for that after the handler has returned.
func (w *responseWriter) flush() {
	_ = w.controller.Flush() // It fails if the client is gone.
}
