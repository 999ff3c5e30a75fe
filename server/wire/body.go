package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"time"
)

// maxEnvelope is the largest envelope, in bytes, that [Envelopes.Receive] returns, with its prefix.
const maxEnvelope = prefixSize + 4<<10

// peeker is a buffered reader, as package h2's request bodies and [bufio.Reader] are.
type peeker interface {
	io.Reader
	// Peek blocks until n bytes are buffered, and returns them. They are valid until the next Peek or Read.
	Peek(n int) ([]byte, error)
	// Discard reads n bytes. It leaves bytes that are buffered in place.
	Discard(n int) (int, error)
	// Buffered returns the number of bytes that Peek returns without blocking.
	Buffered() int
}

// body is a request body. Read is called by one goroutine at a time, and Close concurrently with it.
type body struct {
	inner     io.ReadCloser
	envelopes peeker  // inner, or a buffer in front of it; nil until it is needed
	stream    *Stream // source of read errors
}

func (b *body) Read(p []byte) (int, error) {
	from := io.Reader(b.inner)
	if b.envelopes != nil {
		from = b.envelopes
	}
	n, err := from.Read(p)
	return n, b.readError(err)
}

func (b *body) Close() error {
	return b.inner.Close()
}

// peek returns the next n bytes of the request.
func (b *body) peek(n int) ([]byte, error) {
	if b.envelopes == nil {
		b.buffer()
	}
	peeked, err := b.envelopes.Peek(n)
	if err != nil {
		return nil, b.readError(err)
	}
	return peeked, nil
}

// buffer puts a buffer in front of a body that has none. It is not inlined into the stack of streams that wait.
//
//go:noinline
func (b *body) buffer() {
	b.envelopes = bufio.NewReaderSize(b.inner, 2*maxEnvelope)
}

// readError replaces the error of a read by the cause of an expired deadline, and reports EOF.
func (b *body) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		b.stream.endRequest()
		return err
	default:
		return b.stream.readError(err)
	}
}

// prefix waits for the prefix of the next envelope. It returns the flags, and the length of the message in bytes.
func (b *body) prefix() (flags byte, length int, err error) {
	if b.envelopes == nil || b.envelopes.Buffered() < prefixSize {
		if _, err := b.peek(1); err != nil {
			return 0, 0, err
		}
		b.stream.startMessageTimeout(0)
	}
	prefix, err := b.peek(prefixSize)
	if err != nil {
		return 0, 0, err
	}
	return prefix[0], int(binary.BigEndian.Uint32(prefix[1:])), nil
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
	_, length, err := s.body.prefix()
	if err != nil {
		return 0, false
	}
	s.startMessageTimeout(length)
	return length, true
}

// startMessageTimeout sets the message deadline, unless the next message has arrived in full.
func (s *Stream) startMessageTimeout(length int) {
	if s.messageTimeout.timeout > 0 && !s.timingMessage && s.body.envelopes.Buffered() < prefixSize+length {
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
	body := &e.stream.body
	flags, length, err := body.prefix()
	if err != nil || flags != 0 || prefixSize+length > maxEnvelope {
		return nil, false // Connect gets the error.
	}
	size := prefixSize + length
	if body.envelopes.Buffered() < size {
		e.stream.startMessageTimeout(length)
		if _, err := body.peek(size); err != nil {
			return nil, false
		}
	}
	e.stream.EndMessage()
	envelope, _ := body.envelopes.Peek(size) // It is buffered.
	_, _ = body.envelopes.Discard(size)
	return envelope[prefixSize:], true
}

// Buffered returns whether a part of another message has arrived.
func (e *Envelopes) Buffered() bool {
	body := &e.stream.body
	return body.envelopes != nil && body.envelopes.Buffered() > 0
}
