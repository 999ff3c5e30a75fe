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
// A connection that is not HTTP/2 in clear is read with a buffer, and otherwise left alone.
func NewListener(listener net.Listener) net.Listener {
	return &calmListener{listener}
}

type calmListener struct {
	net.Listener
}

func (l *calmListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newCalmConn(conn), nil
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
	joined   []byte // where held answers and a write come together
	failed   error  // of a write by timer; the next one returns it

	// holding guards what follows. It is taken after writing, and never while a write may block.
	holding sync.Mutex
	held    []byte      // answers to PINGs that wait for another write
	timer   *time.Timer // writes them if there is none
	closed  bool
}

func newCalmConn(conn net.Conn) *calmConn {
	calm := &calmConn{Conn: conn}
	calm.incoming = newIncoming(conn, calm.answer)
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
		n, err := c.Conn.Write(p)
		c.outgoing.follow(p[:n]) // With a deadline, the rest may come later.
		return n, err
	}
	c.joined = append(c.joined, p...)
	n, err := c.Conn.Write(c.joined)
	if n < held && err != nil {
		c.failed = err // A part of an answer was written, and nothing may follow that but the rest of it.
	}
	n = max(n-held, 0)
	c.outgoing.follow(p[:n])
	return n, err
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
	c.held = append(c.held, 0, 0, pingDataSize, typePing, flagAck, 0, 0, 0, 0)
	c.held = append(c.held, data[:]...)
	if len(c.held) > pingSize {
		return true
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(holdFor, c.release)
	} else {
		c.timer.Reset(holdFor)
	}
	return true
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
