package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"time"
)

const (
	// idleBodyBytes is how much is read at once from a request in which little comes.
	idleBodyBytes = 128
	// bodyBytes is how much is read at once from any other.
	bodyBytes = 8 << 10
)

var bodyBuffers = newPool(bodyBytes)

// body is a request's body, read with a buffer: net/http tells the connection's goroutine of each read,
// and Connect reads twice for each message. Read is called by one goroutine at a time, and Close
// concurrently.
type body struct {
	buffered

	inner  io.ReadCloser
	stream *Stream // knows why reading has ended
	atEnd  func()  // is called at the end of the request, unless it is nil
	small  [idleBodyBytes]byte
}

func newBody(inner io.ReadCloser) *body {
	body := &body{buffered: buffered{pool: bodyBuffers}, inner: inner}
	body.from = ending{body}
	body.buffered.small = body.small[:]
	return body
}

// ending is the inner body, and sees its end.
type ending struct{ body *body }

func (e ending) Read(p []byte) (int, error) {
	n, err := e.body.inner.Read(p)
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		err = e.body.stream.readError(err)
	case e.body.atEnd != nil:
		e.body.atEnd()
		e.body.atEnd = nil
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

// message returns what the prefix of the next message says, of which prefixSize bytes have been read.
func (b *body) message() (flags byte, length int) {
	return b.unread()[0], int(binary.BigEndian.Uint32(b.unread()[1:]))
}

// messageDeadline is the time that a message may take to arrive, and the error that reads return beyond it.
type messageDeadline struct {
	timeout time.Duration
	cause   error
}

// SetMessageTimeout bounds how long a message may take to arrive that is received by [Envelopes.Receive], or between
// [Stream.BeginMessage] and [Stream.EndMessage]. It counts from when the first bytes of the message are there, so the client may
// be silent between messages. When the time has passed, reading ends as by [Stream.StopReading]. It must be called
// before anything is read. 0 is no bound.
func (s *Stream) SetMessageTimeout(timeout time.Duration, cause error) {
	s.messages = messageDeadline{timeout, cause}
}

// BeginMessage blocks until the next message of the request has begun to arrive, and returns how long it is, in bytes, as it
// is sent. Then Connect's Receive is to be called, and after it End. Its second result is false if there is no next
// message. It is for streams; a unary request with one of Connect's own content types has no such messages.
func (s *Stream) BeginMessage() (length int, ok bool) {
	if s.body.fill(prefixSize) != nil {
		return 0, false
	}
	_, length = s.body.message()
	s.begin(length)
	return length, true
}

// begin sets a deadline if the next message is not there whole.
func (s *Stream) begin(length int) {
	if s.messages.timeout > 0 && !s.arriving && len(s.body.unread()) < prefixSize+length {
		// An error says that the connection has no read deadlines, and then it has no timeouts.
		_ = s.setArrive(readDeadline{time.Now().Add(s.messages.timeout), s.messages.cause})
		s.arriving = true
	}
}

// EndMessage says that a message has arrived, or will not, after [Stream.BeginMessage].
func (s *Stream) EndMessage() {
	if s.arriving {
		s.arriving = false
		_ = s.setArrive(readDeadline{}) // As in begin.
	}
}

// Receive returns the next message of the request, encoded. It blocks until there is one. The message is
// valid until the next call.
//
// It is no part of Connect: interceptors do not see these messages, and connect.WithReadMaxBytes does not count for
// them, of which none is longer than 4 KiB.
//
// Its second result is false if what comes next is for Connect's Receive: a compressed message, a long one,
// what a protocol ends a stream with, the end of the request, or an error. Nothing is lost then: Connect
// gets it from its start.
func (f *Envelopes) Receive() ([]byte, bool) {
	body := f.stream.body
	if body.fill(prefixSize) != nil {
		return nil, false
	}
	flags, length := body.message()
	if flags != 0 || length > bodyBytes/2 {
		return nil, false
	}
	size := prefixSize + length
	if len(body.unread()) < size {
		f.stream.begin(length)
		if body.fill(size) != nil {
			return nil, false // Connect gets the error.
		}
		f.stream.EndMessage()
	}
	return body.take(size)[prefixSize:], true
}
