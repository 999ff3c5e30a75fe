package h2

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// heldBytes is how much of a response is held back before the first flush, so that a short one gets its Content-Length.
const heldBytes = 2 << 10

// sniffBytes is how much of a body [http.DetectContentType] considers.
const sniffBytes = 512

// response is the state of a [responseWriter]. The handler owns it.
type response struct {
	header   http.Header
	sent     http.Header // header at the time of WriteHeader; nil before
	status   int         // 0 before WriteHeader
	length   int64       // declared Content-Length that was not written; -1 if it was not declared
	held     []byte      // written before the headers were queued
	trailers []string    // keys that the field Trailer declares
}

// responseWriter implements [http.ResponseWriter], [http.Flusher], [Stream], and the methods of
// [http.ResponseController].
type responseWriter stream

// Header implements [http.ResponseWriter].
func (w *responseWriter) Header() http.Header {
	if w.response.header == nil {
		w.response.header = make(http.Header)
	}
	return w.response.header
}

// WriteHeader implements [http.ResponseWriter].
func (w *responseWriter) WriteHeader(status int) {
	r := &w.response
	if r.status != 0 {
		w.conn.server.Logger.Debug("superfluous WriteHeader", "path", w.request.URL.Path, "status", status)
		return
	}
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if status < 200 {
		w.sendInformational(status)
		return
	}
	r.status = status
	r.sent = maps.Clone(r.header)
	r.begin()
}

// begin reads what the header says of the body.
func (r *response) begin() {
	r.length = -1
	if value := r.header.Get("Content-Length"); value != "" {
		if length, err := strconv.ParseUint(value, 10, 63); err == nil {
			r.length = int64(length)
		} else {
			delete(r.sent, "Content-Length")
		}
	}
	for _, names := range r.header["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			if key := http.CanonicalHeaderKey(textproto.TrimString(name)); httpguts.ValidTrailerHeader(key) {
				r.trailers = append(r.trailers, key)
			}
		}
	}
}

// sendInformational sends a 1xx response (section 8.1 of RFC 9113).
func (w *responseWriter) sendInformational(status int) {
	if status == http.StatusSwitchingProtocols {
		panic("status 101 does not exist in HTTP/2")
	}
	s, c := (*stream)(w), w.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.outErr != nil {
		return
	}
	if status == http.StatusContinue {
		s.expects = false
	}
	s.queueHead(status, w.response.header, nil, false)
	c.startWriter()
}

// sendContinue tells the client to send the body. The caller holds c.mu.
func (s *stream) sendContinue() {
	if s.outErr == nil && !s.begun {
		s.queueHead(http.StatusContinue, nil, nil, false)
		s.conn.startWriter()
	}
}

// queueHead queues a header block, with more fields by name that the header does not have. The caller holds c.mu.
func (s *stream) queueHead(status int, header http.Header, more []hpack.HeaderField, end bool) {
	encoder := &s.conn.output.headers
	encoder.begin()
	encoder.field(":status", statusText(status))
	hasLength := status >= 200 && status != http.StatusNoContent // Section 8.6 of RFC 9110.
	for key, values := range header {
		if !strings.HasPrefix(key, http.TrailerPrefix) && (hasLength || key != "Content-Length") {
			encoder.fields(key, values)
		}
	}
	for _, field := range more {
		encoder.field(field.Name, field.Value)
	}
	s.conn.output.appendBlock(s, encoder.block.Bytes(), end)
}

func statusText(status int) string {
	if status == http.StatusOK {
		return "200"
	}
	return strconv.Itoa(status)
}

// sendsBody reports whether the response, whose status is known, may have DATA.
func (w *responseWriter) sendsBody() bool {
	return bodyAllowed(w.response.status) && w.request.Method != http.MethodHead
}

// bodyAllowed reports whether a status allows a body.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// Write implements [http.ResponseWriter].
func (w *responseWriter) Write(p []byte) (int, error) {
	r := &w.response
	if r.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !bodyAllowed(r.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if r.length >= 0 {
		if int64(len(p)) > r.length {
			return 0, http.ErrContentLength
		}
		r.length -= int64(len(p))
	}
	s, c := (*stream)(w), w.conn
	if !w.begun && len(r.held)+len(p) <= heldBytes {
		r.held = append(r.held, p...)
		return len(p), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.begun {
		if err := s.begin(p, false, false); err != nil {
			return 0, err
		}
	}
	if len(p) == 0 || !w.sendsBody() {
		return len(p), s.outErr
	}
	n, err := s.send(p, false)
	if len(c.output.queued) >= startBytes {
		c.startWriter()
	}
	return n, err
}

// WriteString is for [io.WriteString].
func (w *responseWriter) WriteString(p string) (int, error) {
	return w.Write([]byte(p))
}

// begin queues the response headers, and what was held back of the body; next is written after it. The response is complete if the handler
// has returned, and ends with what was held back if end is set. The caller holds c.mu.
func (s *stream) begin(next []byte, complete, end bool) error {
	r, c := &s.response, s.conn
	if s.outErr != nil {
		return s.outErr
	}
	var array [3]hpack.HeaderField
	more := array[:0]
	if _, ok := r.sent["Date"]; !ok {
		more = append(more, hpack.HeaderField{Name: "date", Value: c.server.dateNow()})
	}
	if _, ok := r.sent["Content-Type"]; !ok && len(r.held)+len(next) > 0 && r.sent["Content-Encoding"] == nil && bodyAllowed(r.status) {
		start := append(slices.Clip(r.held), next[:min(len(next), sniffBytes)]...)
		more = append(more, hpack.HeaderField{Name: "content-type", Value: http.DetectContentType(start)})
	}
	sendsBody := (*responseWriter)(s).sendsBody()
	if complete && end && r.sent["Content-Length"] == nil && (sendsBody || len(r.held) > 0) {
		more = append(more, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(r.held))})
	}
	if r.sent["Connection"] != nil && httpguts.HeaderValuesContainsToken(r.sent["Connection"], "close") && !c.draining {
		c.draining = true
		c.sendGoAway()
	}
	if !sendsBody {
		r.held = nil
	}
	s.begun, s.hasBody, s.expects = true, sendsBody, false
	s.queueHead(r.status, r.sent, more, end && len(r.held) == 0)
	r.sent = nil
	if len(r.held) == 0 {
		return nil
	}
	_, err := s.send(r.held, end)
	r.held = nil
	return err
}

// Flush implements [http.Flusher].
func (w *responseWriter) Flush() { _ = w.FlushError() }

// FlushError is for [http.ResponseController]. It hands what was written to the connection. The error says that the stream was closed.
func (w *responseWriter) FlushError() error {
	r := &w.response
	if r.status == 0 {
		r.status = http.StatusOK
		r.sent = r.header // Nothing can change it before it is encoded.
		r.begin()
	}
	s, c := (*stream)(w), w.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.begun {
		if err := s.begin(nil, false, false); err != nil {
			return err
		}
	}
	c.startWriter()
	return s.outErr
}

// SetReadDeadline is for [http.ResponseController]. After the deadline, reads of the body return what has arrived, and then
// [os.ErrDeadlineExceeded]. The response is not affected.
func (w *responseWriter) SetReadDeadline(deadline time.Time) error {
	(*stream)(w).setReadDeadline(deadline)
	return nil
}

// SetWriteDeadline is for [http.ResponseController]. At the deadline, the stream is reset.
func (w *responseWriter) SetWriteDeadline(deadline time.Time) error {
	(*stream)(w).setWriteDeadline(deadline)
	return nil
}

// EnableFullDuplex is for [http.ResponseController]. Streams always are.
func (w *responseWriter) EnableFullDuplex() error { return nil }

// finish ends the response after the handler has returned.
func (w *responseWriter) finish() {
	r, s, c := &w.response, (*stream)(w), w.conn
	if r.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	var trailers http.Header
	if w.request.Method != http.MethodHead {
		trailers = w.collectTrailers()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.outErr != nil {
		return
	}
	if r.length > 0 && w.sendsBody() {
		c.server.Logger.Debug("handler wrote less than its Content-Length", "path", w.request.URL.Path)
		c.resetStream(s, http2.ErrCodeInternal)
		return
	}
	end := len(trailers) == 0
	hadBegun := s.begun
	if !hadBegun {
		if s.begin(nil, true, end) != nil {
			return
		}
	}
	switch {
	case !end:
		encoder := &c.output.headers
		encoder.begin()
		for key, values := range trailers {
			encoder.fields(key, values)
		}
		c.output.appendBlock(s, encoder.block.Bytes(), true)
	case hadBegun:
		c.output.endData(s)
	}
	c.finished(s)
	c.startWriter()
}

// finished ends a stream whose response was queued. A client that is still sending is told to stop
// (https://www.rfc-editor.org/rfc/rfc9113#section-8.1), by a later write if the rest fits into the window: curl loses a response that
// arrives together with RST_STREAM. The caller holds c.mu.
func (c *conn) finished(s *stream) {
	switch {
	case c.streams[s.id] != s:
		return
	case s.inErr == io.EOF: //nolint:errorlint // It is set to EOF itself.
		c.drop(s)
	case c.draining || s.length > int64(s.window):
		c.resetStream(s, http2.ErrCodeNo)
	default:
		s.finished = true
		time.AfterFunc(finishTimeout, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.resetStream(s, http2.ErrCodeNo)
		})
	}
	c.refill(1)
	s.abort(errHandlerDone)
}

// finishTimeout is how long a client may go on sending a request that was answered.
const finishTimeout = time.Millisecond

// collectTrailers returns the trailers that were declared, or have [http.TrailerPrefix].
func (w *responseWriter) collectTrailers() http.Header {
	r := &w.response
	var trailers http.Header
	add := func(key string, values []string) {
		if trailers == nil {
			trailers = make(http.Header)
		}
		trailers[key] = values
	}
	for key, values := range r.header {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok && httpguts.ValidTrailerHeader(http.CanonicalHeaderKey(name)) {
			add(name, values)
		}
	}
	for _, key := range r.trailers {
		if values := r.header[key]; len(values) > 0 {
			add(key, values)
		}
	}
	return trailers
}

// endData ends the body of a response, in its last frame if that is still queued.
func (o *output) endData(s *stream) {
	if o.last == s {
		o.queued[o.lastAt+4] |= byte(http2.FlagDataEndStream)
		o.last = nil
		return
	}
	o.appendData(s, nil, true)
}

// date is a value of the field Date.
type date struct {
	second int64 // since 1970
	text   string
}

// dateNow returns the value of the field Date, which changes once a second.
func (s *Server) dateNow() string {
	now := time.Now()
	if last := s.date.Load(); last != nil && last.second == now.Unix() {
		return last.text
	}
	date := &date{now.Unix(), now.UTC().Format(http.TimeFormat)}
	s.date.Store(date)
	return date.text
}
