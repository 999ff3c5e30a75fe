// Package pipetest is a listener of connections within the process, for tests with testing/synctest: their time is not real, and
// "nothing more happens" is something that they can wait for.
package pipetest

import (
	"net"
	"sync"
	"testing"
)

// A Listener accepts the connections of Dial. Its methods may be called concurrently.
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once // closes closed
}

// Listen returns a listener.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements [net.Listener].
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// Dial opens a connection, which the end of the test closes.
func (l *Listener) Dial(t *testing.T) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	select {
	case l.conns <- server:
	case <-l.closed:
		t.Fatal("the listener is closed")
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}
