package httpserver

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"example.com/routeguide/server/internal/clientlimit"
)

// boundedListener accepts only so many connections at once; the others wait in the operating system's queue. Those
// of a client that has its share are closed. It is above all that wraps a connection, so that a connection is counted
// until it is closed for net/http.
type boundedListener struct {
	net.Listener

	slots   chan struct{} // nil if there is no bound
	shares  *clientlimit.Quota
	closed  chan struct{}
	once    sync.Once // closes closed
	refused atomic.Int64
}

func newBoundedListener(listener net.Listener, most int, share float64) *boundedListener {
	bounded := &boundedListener{
		Listener: listener,
		shares:   clientlimit.NewQuota(0, clientlimit.Share(int64(most), share)),
		closed:   make(chan struct{}),
	}
	if most > 0 {
		bounded.slots = make(chan struct{}, most)
	}
	return bounded
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.accept()
		if err != nil {
			return nil, err
		}
		if l.shares.Acquire(conn.address, 1) == nil {
			return conn, nil
		}
		l.refused.Add(1)
		_ = conn.Conn.Close() // Its client is told nothing else.
		l.release()
	}
}

func (l *boundedListener) accept() (*boundedConn, error) {
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
	return &boundedConn{Conn: conn, listener: l, address: conn.RemoteAddr().String()}, nil
}

func (l *boundedListener) release() {
	if l.slots != nil {
		<-l.slots
	}
}

func (l *boundedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// boundedConn gives its place to another one when it is closed.
type boundedConn struct {
	net.Conn

	listener *boundedListener
	address  string // of the client
	once     sync.Once
}

func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.listener.shares.Release(c.address, 1)
		c.listener.release()
	})
	return err
}

// CloseWrite is for net/http, which looks for it.
func (c *boundedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn returns the connection below, as that of [crypto/tls.Conn] does.
func (c *boundedConn) NetConn() net.Conn {
	return c.Conn
}
