package h2c

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// boundedListener accepts only so many connections at once; the others wait in the operating system's queue. It
// is above all that wraps a connection, so that a connection is counted until it is closed for net/http.
type boundedListener struct {
	net.Listener

	slots  chan struct{} // nil if there is no bound
	closed chan struct{}
	once   sync.Once // closes closed
	open   atomic.Int64
}

func newBoundedListener(listener net.Listener, most int) *boundedListener {
	bounded := &boundedListener{Listener: listener, closed: make(chan struct{})}
	if most > 0 {
		bounded.slots = make(chan struct{}, most)
	}
	return bounded
}

func (l *boundedListener) Accept() (net.Conn, error) {
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
	l.open.Add(1)
	return &boundedConn{Conn: conn, listener: l}, nil
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
	once     sync.Once
}

func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.listener.open.Add(-1)
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
