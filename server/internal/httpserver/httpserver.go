// Package httpserver is the HTTP server: HTTP/1.1 and HTTP/2 on one port, in cleartext (h2c with prior knowledge) or
// over TLS. It limits connections, and has no timeout that ends a long-lived stream. It does not know the RPCs.
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

	"example.com/routeguide/server/h2"
)

const (
	// readHeaderTimeout is the read deadline of a request's header, and of the TLS handshake before it.
	readHeaderTimeout = 10 * time.Second
	// The health check of a connection: a PING after pingAfter without a frame from the client. Without an ACK within
	// pingTimeout, the connection is closed.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// streamWindow is the flow-control window of a stream, in bytes: unread request data. At a round trip of 100 ms it allows
	// 640 kB/s.
	streamWindow = 64 << 10
	// maxFrame and connectionWindow are net/http's SETTINGS_MAX_FRAME_SIZE, and its flow-control window of a connection, in bytes.
	maxFrame         = 16 << 10
	connectionWindow = 512 << 10
)

// Options are the limits and timeouts of a server. 0 means the default of package h2, or no limit if it has none.
type Options struct {
	// NetHTTP serves HTTP/2 by net/http instead of package h2.
	NetHTTP bool
	// TLS is the server's configuration of TLS. Nil means cleartext.
	TLS *tls.Config
	// MaxConnections is the number of open connections. More connections wait to be accepted.
	MaxConnections int
	// ClientShare is the fraction of MaxConnections that one client may have open, from 0 to 1. More connections of
	// the client are closed at once.
	ClientShare float64
	// MaxStreams is SETTINGS_MAX_CONCURRENT_STREAMS of a connection. grpc-go queues further calls, so a low number
	// makes the chats of one connection wait for each other.
	MaxStreams int
	// MaxUnread is the budget for request data that no handler has read, in bytes. Beyond it, streams that send more are reset.
	MaxUnread int64
	// MaxHeaderBytes is the size of a request's header.
	MaxHeaderBytes int
	// IdleTimeout is the time without a request after which a connection is closed.
	IdleTimeout time.Duration
	// StallTimeout is the time without progress after which a blocked write closes the connection.
	StallTimeout time.Duration
	// Logger gets the errors of single connections, at debug level.
	Logger *slog.Logger
}

// A Server serves HTTP on one address.
type Server struct {
	listener *limitListener
	server   server
}

// server is what serves the connections of a listener, as [h2.Server] does.
type server interface {
	Serve(listener net.Listener) error
	Shutdown(ctx context.Context) error
	Close() error
}

// Listen returns a server that listens on address, such as "localhost:50051". Serve accepts connections.
func Listen(ctx context.Context, address string, handler http.Handler, options Options) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	limited := newLimitListener(listener, options.MaxConnections, options.ClientShare)
	if options.NetHTTP {
		return &Server{limited, newNetHTTP(handler, &options)}, nil
	}
	return &Server{limited, &h2.Server{
		Handler:           handler,
		TLSConfig:         options.TLS,
		MaxStreams:        options.MaxStreams,
		StreamWindow:      streamWindow,
		MaxUnread:         options.MaxUnread,
		MaxHeaderBytes:    options.MaxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       options.IdleTimeout,
		PingInterval:      pingAfter,
		PingTimeout:       pingTimeout,
		StallTimeout:      options.StallTimeout,
		Logger:            options.Logger,
	}}, nil
}

// netHTTP is net/http's server, with or without TLS.
type netHTTP struct{ *http.Server }

func (s netHTTP) Serve(listener net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(listener, "", "")
	}
	return s.Server.Serve(listener)
}

func newNetHTTP(handler http.Handler, options *Options) netHTTP {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return netHTTP{&http.Server{
		Handler:   handler,
		TLSConfig: options.TLS,
		Protocols: &protocols,
		// ReadTimeout and WriteTimeout must stay 0: they would end long-lived chats.
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       options.IdleTimeout,
		MaxHeaderBytes:    options.MaxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          options.MaxStreams,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingTimeout,
			WriteByteTimeout:              options.StallTimeout,
			MaxReadFrameSize:              maxFrame,
			MaxReceiveBufferPerStream:     streamWindow,
			MaxReceiveBufferPerConnection: connectionWindow,
		},
		ErrorLog: slog.NewLogLogger(options.Logger.Handler(), slog.LevelDebug),
	}}
}

// Connections returns the number of open connections.
func (s *Server) Connections() int64 {
	return s.listener.shares.InUse()
}

// Refused returns the number of connections closed at once because of ClientShare.
func (s *Server) Refused() int64 {
	return s.listener.refused.Load()
}

// Unread returns the bytes of request data that no handler has read; 0 with net/http, which does not count them.
func (s *Server) Unread() int64 {
	if counts, ok := s.server.(interface{ Unread() int64 }); ok {
		return counts.Unread()
	}
	return 0
}

// Addr returns the listen address.
func (s *Server) Addr() net.Addr {
	return s.listener.Addr()
}

// Serve accepts connections until Shutdown, and then returns nil.
func (s *Server) Serve() error {
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// Close closes the listener and all connections immediately.
func (s *Server) Close() error {
	err := s.server.Close()
	if listenerErr := s.listener.Close(); !errors.Is(listenerErr, net.ErrClosed) {
		err = errors.Join(err, listenerErr)
	}
	return err
}

// Shutdown is a graceful shutdown: it stops accepting, and waits for the requests in flight. If ctx ends first, it
// returns the error of ctx, and the remaining connections stay open until Close.
func (s *Server) Shutdown(ctx context.Context) error {
	return s.server.Shutdown(ctx)
}
