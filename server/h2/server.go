// Package h2 is an HTTP/2 server for any [http.Handler], made for many long-lived streams of small messages, as in
// streaming RPC. Compared with the server of net/http:
//
//   - One goroutine reads a connection and puts DATA directly into the buffer of its stream. Handlers append frames to
//     the output of the connection, and one goroutine writes them all together while there are some.
//   - The two directions of a stream are independent, and so are the streams of a connection: a stream that is not read
//     stops no other one. The bytes that no handler has read are bounded for the whole process.
//   - An idle stream holds no buffer, and an idle connection a small one.
//   - [Stream] lets another goroutine than the handler's queue DATA on many streams without waking their handlers.
//
// HTTP/1.1 on the same port is served by net/http. The package knows no RPC. It implements RFC 9113 without server push and
// priorities, both of which are deprecated or optional there.
package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// The defaults of [Server].
const (
	DefaultMaxStreams        = 250
	DefaultStreamWindow      = 64 << 10
	DefaultMaxHeaderBytes    = 64 << 10
	DefaultMaxUnread         = 256 << 20
	DefaultReadHeaderTimeout = 10 * time.Second
	DefaultPingTimeout       = 15 * time.Second
)

// A Server serves HTTP/2 with prior knowledge and HTTP/1.1 in clear, or both over TLS, as the client chooses by ALPN. Its fields must
// not be changed once Serve was called. Its methods are safe for concurrent use.
type Server struct {
	// Handler handles the requests of both versions of HTTP. It is required.
	//
	// Handlers may do with the response what they may with net/http's server: [http.ResponseController] with deadlines and Flush,
	// trailers that are declared or have [http.TrailerPrefix], and informational responses. A Flush hands the response to the
	// connection and does not wait for the client. Reads and writes of a stream may be concurrent.
	Handler http.Handler
	// TLSConfig is the configuration of TLS; nil is cleartext. Its NextProtos should be h2 and http/1.1.
	TLSConfig *tls.Config

	// MaxStreams is SETTINGS_MAX_CONCURRENT_STREAMS of a connection. 0 is DefaultMaxStreams.
	MaxStreams int
	// StreamWindow is the initial flow-control window of a stream in bytes: the largest part of a request that is buffered while its
	// handler does not read. 0 is DefaultStreamWindow.
	StreamWindow int
	// MaxUnread is the budget of the process for request data that no handler has read, in bytes. Beyond it, streams that send more
	// are reset with ENHANCE_YOUR_CALM. 0 is DefaultMaxUnread.
	MaxUnread int64
	// MaxHeaderBytes is SETTINGS_MAX_HEADER_LIST_SIZE, in bytes. A request beyond it gets status 431. 0 is DefaultMaxHeaderBytes.
	MaxHeaderBytes int
	// ReadHeaderTimeout bounds the TLS handshake, the client preface, and the arrival of a frame or header block that has begun.
	// 0 is DefaultReadHeaderTimeout.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long a connection may be without streams. 0 is no limit.
	IdleTimeout time.Duration
	// PingInterval is how long a connection may be silent before it is sent a PING; 0 is never. It is closed unless a frame
	// arrives within PingTimeout; 0 is DefaultPingTimeout.
	PingInterval, PingTimeout time.Duration
	// StallTimeout is how long 64 KiB may take to be written to a connection. A slower one is closed. 0 is no limit.
	StallTimeout time.Duration

	// BaseContext, ConnContext and ConnState are as in [http.Server]. They may be nil. The first listener's base context is that of
	// all HTTP/1.1 connections.
	BaseContext func(net.Listener) context.Context
	ConnContext func(context.Context, net.Conn) context.Context
	ConnState   func(net.Conn, http.ConnState)
	// Logger gets panics of handlers at level error, and the errors of connections at level debug. Nil is no log.
	Logger *slog.Logger

	once     sync.Once // guards setUp
	http1    *http.Server
	handoff  *handoff
	watchdog *watchdog
	unread   atomic.Int64 // request data that no handler has read, in bytes
	date     atomic.Pointer[date]

	mu         sync.Mutex // guards the fields below
	listeners  map[net.Listener]struct{}
	conns      map[*conn]struct{}
	background sync.WaitGroup // the watchdog, net/http's server, and all connections
	started    bool
	inShutdown bool
	idle       chan struct{} // closed once there is no connection in shutdown
}

// setUp applies the defaults.
func (s *Server) setUp() {
	s.once.Do(func() {
		setDefault(&s.MaxStreams, DefaultMaxStreams)
		setDefault(&s.StreamWindow, DefaultStreamWindow)
		setDefault(&s.MaxUnread, DefaultMaxUnread)
		setDefault(&s.MaxHeaderBytes, DefaultMaxHeaderBytes)
		setDefault(&s.ReadHeaderTimeout, DefaultReadHeaderTimeout)
		setDefault(&s.PingTimeout, DefaultPingTimeout)
		if s.Logger == nil {
			s.Logger = slog.New(slog.DiscardHandler)
		}
		s.listeners = make(map[net.Listener]struct{})
		s.conns = make(map[*conn]struct{})
		s.idle = make(chan struct{})
		s.handoff = newHandoff()
		s.http1 = s.newHTTP1()
		s.watchdog = newWatchdog(s)
	})
}

func setDefault[T int | int64 | time.Duration](value *T, byDefault T) {
	if *value == 0 {
		*value = byDefault
	}
}

// ListenAndServe listens on a TCP address, such as "localhost:8080", and calls [Server.Serve].
func (s *Server) ListenAndServe(address string) error {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	return s.Serve(listener)
}

// Serve accepts connections from a listener, which it closes, and serves each in a goroutine of its own. It always returns an error:
// [http.ErrServerClosed] after Shutdown or Close.
//
// TCP connections are read and written by system calls that cost less than those of package net. A connection that wraps a TCP
// connection, and passes on all bytes unchanged, gets the same if it has a method TCPConn() *net.TCPConn that returns it.
func (s *Server) Serve(listener net.Listener) error {
	s.setUp()
	defer func() { _ = listener.Close() }() // Shutdown may have closed it.
	base := context.Background()
	if s.BaseContext != nil {
		base = s.BaseContext(listener)
	}
	if !s.begin(base, listener) {
		return http.ErrServerClosed
	}
	defer s.forgetListener(listener)
	var pause time.Duration
	for {
		rwc, err := listener.Accept()
		if s.isShutDown() {
			if err == nil {
				_ = rwc.Close()
			}
			return http.ErrServerClosed
		}
		//nolint:staticcheck // Temporary is deprecated for most errors, but is still right for those of accept(2).
		if temporary, ok := errors.AsType[net.Error](err); ok && temporary.Temporary() {
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.Logger.Warn("accept failed: trying again", "err", err, "after", pause)
			time.Sleep(pause)
			continue
		}
		if err != nil {
			return err
		}
		pause = 0
		s.start(base, rwc)
	}
}

// begin registers a listener and starts the goroutines of the server. It returns false after Shutdown or Close.
func (s *Server) begin(base context.Context, listener net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inShutdown {
		return false
	}
	s.listeners[listener] = struct{}{}
	if !s.started {
		s.started = true
		s.http1.BaseContext = func(net.Listener) context.Context { return base }
		s.background.Go(s.watchdog.run)
		s.background.Go(func() { _ = s.http1.Serve(s.handoff) }) // Until it is closed, which is no error.
	}
	return true
}

// start serves a connection in a goroutine.
func (s *Server) start(base context.Context, rwc net.Conn) {
	conn := newConn(base, s, rwc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inShutdown {
		_ = rwc.Close()
		return
	}
	s.conns[conn] = struct{}{}
	s.background.Go(func() {
		defer s.forget(conn)
		conn.serve()
	})
}

func (s *Server) forget(conn *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	if s.inShutdown && len(s.conns) == 0 {
		closeOnce(s.idle)
	}
}

func (s *Server) forgetListener(listener net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, listener)
}

func (s *Server) isShutDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inShutdown
}

// open returns the HTTP/2 connections.
func (s *Server) open() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*conn, 0, len(s.conns))
	for conn := range s.conns {
		conns = append(conns, conn)
	}
	return conns
}

// Unread returns the bytes of request data that no handler has read.
func (s *Server) Unread() int64 { return s.unread.Load() }

// Shutdown is a graceful shutdown: it closes the listeners, tells clients by GOAWAY to open no more streams, and waits until all streams
// have ended. If ctx ends first, it returns the error of ctx, and the remaining connections stay open until Close.
func (s *Server) Shutdown(ctx context.Context) error {
	s.setUp()
	listenerErr := s.stopListening()
	for _, conn := range s.open() {
		conn.goAway()
	}
	if err := s.http1.Shutdown(ctx); err != nil {
		return err
	}
	select {
	case <-s.idle:
		s.watchdog.stop()
		s.background.Wait()
		return listenerErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes all listeners and connections at once. It does not wait for handlers.
func (s *Server) Close() error {
	s.setUp()
	err := errors.Join(s.stopListening(), s.http1.Close())
	for _, conn := range s.open() {
		conn.close(errServerClosed)
	}
	s.watchdog.stop()
	return err
}

var errServerClosed = errors.New("server closed")

// stopListening closes the listeners and refuses new connections.
func (s *Server) stopListening() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inShutdown = true
	if len(s.conns) == 0 {
		closeOnce(s.idle)
	}
	var err error
	for listener := range s.listeners {
		if closeErr := listener.Close(); !errors.Is(closeErr, net.ErrClosed) {
			err = errors.Join(err, closeErr)
		}
	}
	_ = s.handoff.Close()
	return err
}

// closeOnce closes a channel that may be closed already. The caller holds the lock that guards the channel.
func closeOnce(channel chan struct{}) {
	select {
	case <-channel:
	default:
		close(channel)
	}
}
