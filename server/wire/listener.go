package wire

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

// readBytes is how much is read from a connection at once.
const readBytes = 32 << 10

// NewListener returns a listener whose connections are read from and written to less often. With many
// small messages, system calls are much of what a message costs on net/http's HTTP/2 server:
//
//   - It makes two for each frame that it reads; the connections are read with a buffer.
//   - It writes whenever nothing is left to write. Before a write the processor is yielded once, so that
//     what other streams are about to send comes to the next write together.
//   - It answers each PING with a write. grpc-go's clients send one after nearly every message, to
//     measure the connection; the answer joins the next write, if there is one within a millisecond.
//
// It goes below TLS, if there is any. The answers to PINGs are then not seen, and not held.
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
	return &calmConn{Conn: conn, reader: bufio.NewReaderSize(conn, readBytes)}, nil
}

// pingAckSize is the size of the answer to a PING: a frame's header, and 8 bytes
// (https://www.rfc-editor.org/rfc/rfc9113#section-6.7).
const pingAckSize = 9 + 8

// pingAckHeader is the header of the answer to a PING: its length, its type, the flag ACK, and stream 0.
var pingAckHeader = []byte{0, 0, 8, 6, 1, 0, 0, 0, 0}

// holdFor is how long the answer to a PING may wait for another write to join.
const holdFor = time.Millisecond

// joinBytes is how large a write may be for an answer to be copied to it. A system call is little of what
// a larger one costs, and the connection keeps the memory of the copy.
const joinBytes = 2 << 10

// calmConn is a connection. Read is called by one goroutine at a time, as it is by net/http.
type calmConn struct {
	net.Conn

	reader *bufio.Reader

	mu sync.Mutex // guards the rest, and the order of writes
	// held is an answer to a PING that waits for another write, if holding.
	held    [pingAckSize]byte
	holding bool
	joined  []byte      // where a held answer and a write come together
	timer   *time.Timer // writes what is held
	failed  error       // of a write by timer; the next one returns it
}

func (c *calmConn) Read(p []byte) (int, error) {
	return c.reader.Read(p)
}

func (c *calmConn) Write(p []byte) (int, error) {
	isAck := len(p) == pingAckSize && bytes.Equal(p[:len(pingAckHeader)], pingAckHeader)
	if !isAck {
		runtime.Gosched()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return 0, c.failed
	}
	if isAck && !c.holding {
		c.hold(p)
		return len(p), nil
	}
	if !c.holding {
		return c.Conn.Write(p)
	}
	c.holding = false
	c.timer.Stop()
	if len(p) > joinBytes {
		if _, err := c.Conn.Write(c.held[:]); err != nil {
			return 0, err
		}
		return c.Conn.Write(p)
	}
	c.joined = append(append(c.joined[:0], c.held[:]...), p...)
	n, err := c.Conn.Write(c.joined)
	return max(n-pingAckSize, 0), err
}

// hold keeps the answer to a PING for the next write. The caller holds c.mu.
func (c *calmConn) hold(ack []byte) {
	copy(c.held[:], ack)
	c.holding = true
	if c.timer == nil {
		c.timer = time.AfterFunc(holdFor, c.release)
	} else {
		c.timer.Reset(holdFor)
	}
}

// release writes what is held, since nothing else was written.
func (c *calmConn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holding {
		c.holding = false
		_, c.failed = c.Conn.Write(c.held[:])
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
	// Not under the lock: closing ends a write that blocks.
	err := c.Conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = false
	if c.timer != nil {
		c.timer.Stop()
	}
	return err
}
