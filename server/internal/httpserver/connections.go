package httpserver

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"example.com/routeguide/server/internal/clientlimit"
)

// sendBuffer is the size of the kernel's send buffer of a connection, in bytes; Linux takes twice as much. By default it grows to
// 4 MB, which slow clients would hold, and a blocked write goes on once a third is free: a slow but steady reader would look like one that reads
// nothing.
const sendBuffer = 128 << 10

// limitListener limits the number of open connections. At the limit it stops accepting, and new connections wait in the
// accept queue of the kernel. It closes connections of a client beyond the client's share. It must be the outermost
// listener, so that a connection counts until the server closes it.
type limitListener struct {
	net.Listener

	slots   chan struct{} // one element for each open connection; nil if there is no limit
	shares  *clientlimit.Quota
	closed  chan struct{}
	once    sync.Once    // closes closed
	refused atomic.Int64 // connections
}

func newLimitListener(listener net.Listener, maxConnections int, share float64) *limitListener {
	limited := &limitListener{
		Listener: listener,
		shares:   clientlimit.NewQuota(0, clientlimit.Share(int64(maxConnections), share)),
		closed:   make(chan struct{}),
	}
	if maxConnections > 0 {
		limited.slots = make(chan struct{}, maxConnections)
	}
	return limited
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.accept()
		if err != nil {
			return nil, err
		}
		if l.shares.Acquire(conn.address, 1) == nil {
			return conn, nil
		}
		l.refused.Add(1)
		_ = conn.Conn.Close() // The inner one: limitConn.Close would release the share, which was not acquired.
		l.release()
	}
}

func (l *limitListener) accept() (*limitConn, error) {
	if l.slots != nil {
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		l.release()
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // Without it, the kernel's default is in force.
	}
	return &limitConn{Conn: conn, listener: l, address: conn.RemoteAddr().String()}, nil
}

func (l *limitListener) release() {
	if l.slots != nil {
		<-l.slots
	}
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// limitConn releases its slot and its share when it is closed.
type limitConn struct {
	net.Conn

	listener *limitListener
	address  string // host:port of the client
	once     sync.Once
}

func (c *limitConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.listener.shares.Release(c.address, 1)
		c.listener.release()
	})
	return err
}

// TCPConn returns the connection that is wrapped. Package h2 reads and writes it.
func (c *limitConn) TCPConn() *net.TCPConn {
	tcp, _ := c.Conn.(*net.TCPConn)
	return tcp
}

// CloseWrite half-closes the connection. Package h2 and net/http look for this method.
func (c *limitConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
