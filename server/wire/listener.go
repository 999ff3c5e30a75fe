package wire

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

// NewListener returns a listener whose connections are read from and written to less often. With many
// small messages, system calls are much of what a message costs on net/http's HTTP/2 server:
//
//   - It makes two for each frame that it reads, and hands it to other goroutines; the connections are read
//     with a buffer, and small frames of DATA that have come together are made one.
//   - It writes whenever nothing is left to write. Before a write the processor is yielded once, so that
//     what other streams are about to send comes to the next write together.
//   - It answers each PING with a write. grpc-go's clients send one after nearly every message, to
//     measure the connection; the answer joins the next write, if there is one within 5 milliseconds.
//
// Unless it is 0, streamWindow is how much a client may send on a stream before it is read. net/http has a setting for
// that, too, but with that one a client that writes much before it reads anything would be stopped for ever. For
// this one, the setting, HTTP2Config.MaxReceiveBufferPerStream, must be [StreamBuffer].
//
// A connection that is not HTTP/2 in clear is read with a buffer, and otherwise left alone.
func NewListener(listener net.Listener, streamWindow int) net.Listener {
	return &calmListener{listener, streamWindow}
}

type calmListener struct {
	net.Listener

	streamWindow int
}

func (l *calmListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newCalmConn(conn, l.streamWindow), nil
}

// A PING carries 8 bytes, which are sent back in its answer
// (https://www.rfc-editor.org/rfc/rfc9113#section-6.7).
const (
	pingDataSize = 8
	pingSize     = frameHeaderSize + pingDataSize
)

// holdFor is how long the answer to a PING may wait for another write to join: longer than a busy client
// takes between two messages, and shorter than who measures a connection would mind.
const holdFor = 5 * time.Millisecond

// joinBytes is how large a write may be for an answer to be copied to it. A system call is little of what
// a larger one costs, and the connection keeps the memory of the copy.
const joinBytes = 2 << 10

// maxHeld is how many answers to PINGs may wait. Beyond it nothing is read until they are written: who sends PINGs
// and does not read their answers is not read from.
const maxHeld = 1000

// maxWait is how long the rest of a frame may take to be written, in which no answer can come.
const maxWait = 10 * time.Second

var errManyPings = errors.New("the answers to PINGs cannot be written")

// calmConn is a connection. Read is called by one goroutine at a time, as it is by net/http.
type calmConn struct {
	net.Conn

	incoming *incoming

	writing  sync.Mutex // guards what follows, and the order of writes
	outgoing outgoing
	joined   []byte // where what is held and a write come together
	shown    []byte // where a write is put together of which the client is not to see all
	failed   error  // of a write by timer; the next one returns it

	// holding guards what follows. It is taken after writing, and never while a write may block.
	holding sync.Mutex
	held    []byte      // answers to PINGs, and WINDOW_UPDATEs, that wait for another write
	timer   *time.Timer // writes them if there is none
	closed  bool
}

func newCalmConn(conn net.Conn, streamWindow int) *calmConn {
	calm := &calmConn{Conn: conn}
	if streamWindow > 0 {
		calm.outgoing.windows = newWindows(streamWindow)
	}
	calm.incoming = newIncoming(conn, calm.answer, calm.outgoing.windows)
	return calm
}

func (c *calmConn) Read(p []byte) (int, error) {
	return c.incoming.Read(p)
}

func (c *calmConn) Write(p []byte) (int, error) {
	runtime.Gosched()
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.failed != nil {
		return 0, c.failed
	}
	shown, isAll := c.outgoing.visible(p, c.shown[:0])
	n, err := c.write(shown)
	if !isAll {
		if cap(shown) <= joinBytes {
			c.shown = shown[:0]
		}
		if err != nil {
			c.failed = err // What is left cannot be told in terms of p.
			return 0, err
		}
		n = len(p)
	}
	c.outgoing.follow(p[:n]) // With a deadline, the rest may come later.
	c.returnWindows()
	return n, err
}

// write writes p, and before it what is held. The caller holds c.writing.
func (c *calmConn) write(p []byte) (int, error) {
	c.takeHeld()
	held := len(c.joined)
	if held > 0 && len(p) > joinBytes {
		if _, err := c.Conn.Write(c.joined); err != nil {
			c.failed = err // as below
			return 0, err
		}
		held = 0
	}
	if held == 0 {
		if len(p) == 0 {
			return 0, nil
		}
		return c.Conn.Write(p)
	}
	c.joined = append(c.joined, p...)
	n, err := c.Conn.Write(c.joined)
	if n < held && err != nil {
		c.failed = err // A part of an answer was written, and nothing may follow that but the rest of it.
	}
	return max(n-held, 0), err
}

// returnWindows gives back what is to be given back of the windows of streams, with the next write. The caller holds
// c.writing.
func (c *calmConn) returnWindows() {
	if !c.outgoing.returns {
		return
	}
	c.outgoing.returns = false
	c.holding.Lock()
	defer c.holding.Unlock()
	before := len(c.held)
	c.held = c.outgoing.windows.append(c.held)
	c.startTimer(before)
}

// takeHeld moves what is held and can be written now to c.joined, which it empties before. The caller holds
// c.writing.
func (c *calmConn) takeHeld() {
	c.joined = c.joined[:0]
	if !c.outgoing.betweenFrames() {
		return
	}
	c.holding.Lock()
	defer c.holding.Unlock()
	c.joined = append(c.joined, c.held...)
	c.held = c.held[:0]
}

// answer answers a PING together with the next write, or with those of others if there are many. Only then may it
// block.
func (c *calmConn) answer(data [pingDataSize]byte) error {
	var deadline time.Time
	for !c.hold(data) {
		if deadline.IsZero() {
			deadline = time.Now().Add(maxWait)
		}
		c.writing.Lock()
		c.writeHeld()
		err := c.failed
		c.writing.Unlock()
		switch {
		case err != nil:
			return err
		case time.Now().After(deadline):
			return errManyPings
		}
		time.Sleep(holdFor / 10) // Unless they were written, this is within a frame.
	}
	return nil
}

// hold keeps an answer for the next write. It returns false if too many are kept.
func (c *calmConn) hold(data [pingDataSize]byte) bool {
	c.holding.Lock()
	defer c.holding.Unlock()
	if c.closed {
		return true // Nobody waits for it any more.
	}
	if len(c.held) >= maxHeld*pingSize {
		return false
	}
	before := len(c.held)
	c.held = append(c.held, 0, 0, pingDataSize, typePing, flagAck, 0, 0, 0, 0)
	c.held = append(c.held, data[:]...)
	c.startTimer(before)
	return true
}

// startTimer sees to it that what is held is written, when before so much was. The caller holds c.holding.
func (c *calmConn) startTimer(before int) {
	switch {
	case before > 0 || len(c.held) == 0 || c.closed:
	case c.timer == nil:
		c.timer = time.AfterFunc(holdFor, c.release)
	default:
		c.timer.Reset(holdFor)
	}
}

// writeHeld writes what is held, if it may come now. The caller holds c.writing.
func (c *calmConn) writeHeld() {
	if c.takeHeld(); len(c.joined) > 0 && c.failed == nil {
		_, c.failed = c.Conn.Write(c.joined)
	}
}

// release writes what is held, since nothing else was written. If the rest of a frame is yet to be
// written, that comes first.
func (c *calmConn) release() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.writeHeld()
	c.holding.Lock()
	defer c.holding.Unlock()
	if len(c.held) > 0 && !c.closed {
		c.timer.Reset(holdFor)
	}
}

// CloseWrite closes the writing side. net/http calls it before it closes an HTTP/1.1 connection whose
// request it has not read to its end, so that the client still gets the response.
func (c *calmConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection. What is held is not written: nobody waits for it any more.
func (c *calmConn) Close() error {
	err := c.Conn.Close()
	c.holding.Lock()
	defer c.holding.Unlock()
	c.held, c.closed = nil, true
	if c.timer != nil {
		c.timer.Stop()
	}
	return err
}
