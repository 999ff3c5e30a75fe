package h2

import (
	"bufio"
	"io"
	"maps"
	"net/http"

	"golang.org/x/net/http2"
)

// receive buffers DATA. The caller, the reader, holds c.mu.
func (s *stream) receive(data []byte) {
	if s.dropping || len(data) == 0 {
		return
	}
	server := s.conn.server
	if server.unread.Load() > server.MaxUnread && len(s.arrived) > fairUnread {
		s.conn.resetStream(s, http2.ErrCodeEnhanceYourCalm)
		return
	}
	server.unread.Add(int64(len(data)))
	s.arrived = s.appendBuffer(s.arrived, 0, data)
	s.readable.Signal()
}

// fairUnread is what each stream may have unread, in bytes, however much others have.
const fairUnread = 4 << 10

// fill blocks until more of the body has arrived, and appends it to reading. It returns an error if nothing more comes. A silent stream
// waits here, so the frame on the stack is small.
func (s *stream) fill() error {
	s.conn.mu.Lock()
	if len(s.arrived) == 0 {
		s.waitReadable()
	}
	err := s.take()
	s.conn.mu.Unlock()
	return err
}

// take moves what has arrived to reading. The caller holds c.mu.
func (s *stream) take() error {
	switch {
	case len(s.arrived) == 0:
		return s.readErr()
	case len(s.unread()) == 0:
		s.putBuffer(s.reading)
		s.reading = s.arrived
	default:
		s.reading = s.appendBuffer(s.reading, s.readAt, s.arrived)
		s.putBuffer(s.arrived)
	}
	s.taken += len(s.arrived)
	s.readAt, s.arrived = 0, nil
	return nil
}

// uncount takes what the handler has read out of Server.Unread. The caller holds c.mu.
func (s *stream) uncount() {
	n := min(s.counted, s.taken) // Nothing is taken any more once the handler has returned.
	s.conn.server.unread.Add(-int64(n))
	s.taken -= n
	s.counted = 0
}

// unread returns what can be read without the lock.
func (s *stream) unread() []byte { return s.reading[s.readAt:] }

// waitReadable waits for DATA or an error. The caller holds c.mu.
func (s *stream) waitReadable() {
	if len(s.unread()) == 0 && s.reading != nil {
		s.putBuffer(s.reading) // A quiet stream holds no buffer.
		s.reading, s.readAt = nil, 0
		s.uncount()
	}
	for len(s.arrived) == 0 && s.inErr == nil && s.lapsed == nil {
		if s.expects {
			s.expects = false
			s.sendContinue()
		}
		s.readable.Wait()
	}
}

// readErr returns the error of a read after all that has arrived. The caller holds c.mu.
func (s *stream) readErr() error {
	if s.inErr == io.EOF { //nolint:errorlint // END_STREAM sets it to EOF itself.
		maps.Copy(s.request.Trailer, s.trailer)
		s.trailer = nil
		return io.EOF
	}
	if s.lapsed != nil {
		return s.lapsed
	}
	return s.inErr
}

// consume counts bytes that the handler has read, and gives them back to the client's window.
func (s *stream) consume(n int) {
	s.readAt += n
	s.counted += n
	if s.consumed += n; s.consumed >= s.conn.server.StreamWindow/windowPart {
		s.giveBack()
	}
}

// windowPart is the part of a window, as a divisor, that is given back at once.
const windowPart = 4

func (s *stream) giveBack() {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.uncount()
	if s.inErr == nil && c.streams[s.id] == s {
		s.window += s.consumed
		c.output.appendWindowUpdate(s.id, s.consumed)
		c.startWriter()
	}
	s.consumed = 0
}

// requestBody is the body of a request. It is read by one goroutine at a time. Peek, Discard and Buffered are those of [bufio.Reader].
type requestBody stream

// Read implements [io.Reader].
func (b *requestBody) Read(p []byte) (int, error) {
	s := (*stream)(b)
	if len(p) == 0 {
		return 0, nil
	}
	if len(s.unread()) == 0 {
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.unread())
	s.consume(n)
	return n, nil
}

// Peek returns the next n bytes without reading them. They are valid until the next Peek or Read. If there are fewer, the error says why. n may be
// half of [Server.StreamWindow].
func (b *requestBody) Peek(n int) ([]byte, error) {
	s := (*stream)(b)
	if n > s.conn.server.StreamWindow/2 {
		return nil, bufio.ErrBufferFull // The client's window may be too small for it, as up to a half is not given back yet.
	}
	for len(s.unread()) < n {
		if err := s.fill(); err != nil {
			return s.unread(), err
		}
	}
	return s.unread()[:n], nil
}

// Discard reads n bytes that were peeked at.
func (b *requestBody) Discard(n int) (int, error) {
	s := (*stream)(b)
	if n > len(s.unread()) {
		return 0, io.ErrShortBuffer
	}
	s.consume(n)
	return n, nil
}

// Buffered returns how many bytes can be peeked at without blocking, at least.
func (b *requestBody) Buffered() int {
	return len((*stream)(b).unread())
}

// Close implements [io.Closer]: nothing more is read, and what arrives is dropped.
func (b *requestBody) Close() error {
	c := b.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s := (*stream)(b)
	if !s.dropping {
		s.dropping = true
		c.server.unread.Add(-int64(len(s.arrived)))
		s.putBuffer(s.arrived)
		s.arrived = nil
		if s.lapsed == nil {
			s.lapsed = http.ErrBodyReadAfterClose
		}
		s.readable.Broadcast()
	}
	return nil
}
