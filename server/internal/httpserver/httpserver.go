// Package h2c is the listener and the HTTP server: HTTP/1.1 and HTTP/2 with prior knowledge on one
// port, in clear or by TLS, with limits that let streams live as long as they want. It knows nothing of
// what it serves.
package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"example.com/routeguide/server/wire"
)

const (
	// readHeaderTimeout is how long a request's header may take to arrive, and before it the handshake of
	// TLS.
	readHeaderTimeout = 10 * time.Second
	// A connection from which nothing comes for pingAfter is sent a PING, and is closed if that
	// is not answered within pingTimeout.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// streamWindow is how much of a request may wait for its handler to read. Of five that are not read at all, the
	// connection still has room for others: they get two windows together, and another one each. A client
	// that is 100 ms away gets 640 kB/s through it.
	streamWindow = 64 << 10
	// maxFrame is how long a frame may be that a client sends: as long as every server must take
	// (https://www.rfc-editor.org/rfc/rfc9113#section-4.2). net/http has memory ready for a whole frame once its
	// header has come.
	maxFrame = 16 << 10
	// connectionWindow is how much of a connection's requests may wait for handlers to read.
	connectionWindow = 512 << 10
)

// Options bound what clients may take of a server. With 0, a bound is net/http's, or none if it has none.
type Options struct {
	// TLS is how to speak TLS. Without it, the server speaks in clear.
	TLS *tls.Config
	// MaxConnections is how many connections may be open. Further ones wait until one is closed.
	MaxConnections int
	// ClientShare is the part of MaxConnections that one client may have open, between 0 and 1. Further ones of
	// it are closed at once.
	ClientShare float64
	// MaxStreams is how many requests one connection may have open. grpc-go waits for a free one, so a
	// low number makes clients wait for each other's chats.
	MaxStreams int
	// MaxHeaderBytes is how large the header of a request may be.
	MaxHeaderBytes int
	// IdleTimeout is how long a connection may have no request.
	IdleTimeout time.Duration
	// StallTimeout is how long a connection may take none of the bytes that wait for it.
	StallTimeout time.Duration
	// Logger gets what goes wrong with single connections, at the debug level.
	Logger *slog.Logger
}

// A Server serves HTTP on one address.
type Server struct {
	listener *boundedListener
	http     *http.Server
}

// Listen returns a server that listens on address, such as "localhost:50051", and does not accept
// yet.
func Listen(ctx context.Context, address string, handler http.Handler, options Options) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.TLS != nil {
		listener = &tlsListener{listener, options.TLS}
		handler = withTLS(handler)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // or what looks like that, above TLS
	return &Server{
		listener: newBoundedListener(wire.NewListener(listener, streamWindow), options.MaxConnections, options.ClientShare),
		http: &http.Server{
			Handler:     handler,
			ConnContext: withTLSState,
			Protocols:   &protocols,
			// ReadTimeout and WriteTimeout stay 0: they would end every chat that outlives them.
			ReadHeaderTimeout: readHeaderTimeout,
			IdleTimeout:       options.IdleTimeout,
			MaxHeaderBytes:    options.MaxHeaderBytes,
			HTTP2: &http.HTTP2Config{
				MaxConcurrentStreams:          options.MaxStreams,
				SendPingTimeout:               pingAfter,
				PingTimeout:                   pingTimeout,
				WriteByteTimeout:              options.StallTimeout,
				MaxReadFrameSize:              maxFrame,
				MaxReceiveBufferPerStream:     wire.StreamBuffer,
				MaxReceiveBufferPerConnection: connectionWindow,
			},
			ErrorLog: slog.NewLogLogger(options.Logger.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Connections returns how many connections are open.
func (s *Server) Connections() int64 {
	return s.listener.shares.InUse()
}

// Refused returns how many connections were closed at once because their clients had their share.
func (s *Server) Refused() int64 {
	return s.listener.refused.Load()
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr {
	return s.listener.Addr()
}

// Serve accepts connections until Shutdown, and then returns nil.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// Close closes the listener and all connections, at once.
func (s *Server) Close() error {
	err := s.http.Close()
	if closing := s.listener.Close(); !errors.Is(closing, net.ErrClosed) {
		err = errors.Join(err, closing)
	}
	return err
}

// Shutdown stops accepting, and waits until all requests have ended. If ctx ends first, it closes
// the connections that are left and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	return err
}
