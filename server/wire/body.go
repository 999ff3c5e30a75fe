package wire

import (
	"encoding/binary"
	"errors"
	"io"
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

	inner io.ReadCloser
	atEnd func() // is called at the end of the request, unless it is nil
	small [idleBodyBytes]byte
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
	if e.body.atEnd != nil && errors.Is(err, io.EOF) {
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

// Receive returns the next message of the request, encoded. It blocks until there is one. The message is
// valid until the next call.
//
// It is no part of Connect: interceptors do not see these messages, and connect.WithReadMaxBytes does not count for
// them, of which none is longer than 4 KiB.
//
// Its second result is false if what comes next is for Connect's Receive: a compressed message, a long one,
// what a protocol ends a stream with, the end of the request, or an error. Nothing is lost then: Connect
// gets it from its start.
func (f *Frames) Receive() ([]byte, bool) {
	body := f.stream.body
	if body.fill(prefixSize) != nil {
		return nil, false
	}
	flags, length := body.unread()[0], binary.BigEndian.Uint32(body.unread()[1:])
	if flags != 0 || length > bodyBytes/2 {
		return nil, false
	}
	size := prefixSize + int(length)
	if body.fill(size) != nil {
		return nil, false
	}
	return body.take(size)[prefixSize:], true
}
