package h2

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// newHTTP1 returns the server of connections that do not speak HTTP/2.
func (s *Server) newHTTP1() *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           s.Handler,
		Protocols:         &protocols,
		ReadHeaderTimeout: s.ReadHeaderTimeout,
		IdleTimeout:       s.IdleTimeout,
		MaxHeaderBytes:    s.MaxHeaderBytes,
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if s.ConnContext != nil {
				ctx = s.ConnContext(ctx, accepted(conn))
			}
			return ctx
		},
		ConnState: func(conn net.Conn, state http.ConnState) {
			if s.ConnState != nil && state != http.StateNew { // It was new when it was accepted.
				s.ConnState(accepted(conn), state)
			}
		},
		ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
	}
}

// handoff is the listener of net/http's server: it accepts the connections that speak HTTP/1.1.
type handoff struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once // closes closed
}

func newHandoff() *handoff {
	return &handoff{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give hands a connection to net/http. It returns false after Close.
func (h *handoff) give(conn net.Conn) bool {
	select {
	case h.conns <- conn:
		return true
	case <-h.closed:
		return false
	}
}

// Accept implements [net.Listener].
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements [net.Listener].
func (h *handoff) Addr() net.Addr { return handoffAddr{} }

type handoffAddr struct{}

func (handoffAddr) Network() string { return "handoff" }
func (handoffAddr) String() string  { return "handoff" }

// replayConn is a connection whose first bytes were read already.
type replayConn struct {
	net.Conn

	read []byte // and not yet replayed
}

func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(p, c.read)
		if c.read = c.read[n:]; len(c.read) == 0 {
			c.read = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite half-closes the connection. net/http looks for this method.
func (c *replayConn) CloseWrite() error {
	return closeWrite(c.Conn)
}

// closeWrite half-closes a connection that can be.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// accepted returns the connection that the listener accepted, or its TLS connection.
func accepted(conn net.Conn) net.Conn {
	if replay, ok := conn.(*replayConn); ok {
		return replay.Conn
	}
	return conn
}
