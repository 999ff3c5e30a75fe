package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

const (
	// smallBodyBuffer is the read buffer of a quiet request, in bytes.
	smallBodyBuffer = 128
	// largeBodyBuffer is the read buffer of a busy request, in bytes.
	largeBodyBuffer = 8 << 10
)

var bodyBuffers = newPool(largeBodyBuffer)

// body is a buffered request body. Each read from net/http notifies the connection's goroutine, and Connect
// reads twice for each message: the buffer saves most of these reads. Read is called by one goroutine at a time,
// and Close concurrently with it.
type body struct {
	buffered

	inner  io.ReadCloser
	stream *Stream // source of read errors
	onEOF  func()  // called at the end of the request; may be nil
	small  [smallBodyBuffer]byte
}

func newBody(inner io.ReadCloser) *body {
	body := &body{buffered: buffered{pool: bodyBuffers}, inner: inner}
	body.from = innerBody{body}
	body.buffered.small = body.small[:]
	return body
}

// innerBody reads net/http's body, replaces its errors by the cause of an expired deadline, and reports EOF.
type innerBody struct{ body *body }

func (i innerBody) Read(p []byte) (int, error) {
	n, err := i.body.inner.Read(p)
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		err = i.body.stream.readError(err)
	case i.body.onEOF != nil:
		i.body.onEOF()
		i.body.onEOF = nil
	}
	return n, err
}

func (b *body) Read(p []byte) (int, error) {
	if len(b.unread()) == 0 {
		if len(p) >= len(b.buffer()) {
			return b.from.Read(p)
		}
		if err := b.fill(1); err != nil {
			return 0, err
		}
	}
	return copy(p, b.take(min(len(p), len(b.unread())))), nil
}

func (b *body) Close() error {
	return b.inner.Close()
}

// prefix returns the flags and the length in bytes of the next envelope. The caller has buffered at least
// prefixSize bytes.
func (b *body) prefix() (flags byte, length int) {
	return b.unread()[0], int(binary.BigEndian.Uint32(b.unread()[1:]))
}

// messageTimeout is the longest time a message may take to arrive.
type messageTimeout struct {
	timeout time.Duration // 0 is no timeout
	cause   error         // error of reads after the timeout
}

// SetMessageTimeout bounds the arrival of a message that is received by [Envelopes.Receive], or between
// [Stream.BeginMessage] and [Stream.EndMessage]. The timeout starts with the first bytes of the message, so the
// client may be idle between messages. When it expires, reads return cause, as after [Stream.StopReading].
// SetMessageTimeout must be called before the first read. 0 is no timeout.
func (s *Stream) SetMessageTimeout(timeout time.Duration, cause error) {
	s.messageTimeout = messageTimeout{timeout, cause}
}

// BeginMessage blocks until the prefix of the next envelope has arrived, and returns the envelope's length in
// bytes, as sent. The caller must then call Connect's Receive, and after it [Stream.EndMessage]. BeginMessage
// returns false if there is no next envelope. It is for streams: unary requests in Connect's own protocol have
// no envelopes.
func (s *Stream) BeginMessage() (length int, ok bool) {
	if s.body.fill(prefixSize) != nil {
		return 0, false
	}
	_, length = s.body.prefix()
	s.startMessageTimeout(length)
	return length, true
}

// startMessageTimeout sets the message deadline, unless the next message has arrived in full.
func (s *Stream) startMessageTimeout(length int) {
	if s.messageTimeout.timeout > 0 && !s.timingMessage && len(s.body.unread()) < prefixSize+length {
		// It fails if the connection does not support read deadlines; then there are no timeouts.
		_ = s.setArrival(readDeadline{time.Now().Add(s.messageTimeout.timeout), s.messageTimeout.cause})
		s.timingMessage = true
	}
}

// EndMessage ends a message that began with [Stream.BeginMessage], whether or not it was received.
func (s *Stream) EndMessage() {
	if s.timingMessage {
		s.timingMessage = false
		_ = s.setArrival(readDeadline{}) // As in startMessageTimeout.
	}
}

// Receive blocks until the next message of the request has arrived, and returns it, encoded. The message is
// valid until the next call.
//
// Receive bypasses Connect: interceptors do not see these messages, and connect.WithReadMaxBytes does not apply.
// No message is longer than 4 KiB.
//
// Receive returns false if Connect's Receive must read on: for a compressed message, a message longer than
// 4 KiB, the end-of-stream envelope of a protocol, the end of the request, or an error. Nothing is lost: Connect
// reads from the start of the envelope.
func (e *Envelopes) Receive() ([]byte, bool) {
	body := e.stream.body
	if body.fill(prefixSize) != nil {
		return nil, false
	}
	flags, length := body.prefix()
	if flags != 0 || length > largeBodyBuffer/2 {
		return nil, false
	}
	size := prefixSize + length
	if len(body.unread()) < size {
		e.stream.startMessageTimeout(length)
		if body.fill(size) != nil {
			return nil, false // Connect gets the error.
		}
		e.stream.EndMessage()
	}
	return body.take(size)[prefixSize:], true
}
