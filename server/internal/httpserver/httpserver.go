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

	"example.com/routeguide/server/wire"
)

const (
	// readHeaderTimeout is the read deadline of a request's header, and of the TLS handshake before it.
	readHeaderTimeout = 10 * time.Second
	// The health check of a connection: a PING after pingAfter without a frame from the client. Without an ACK within
	// pingTimeout, the connection is closed.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// streamWindow is the flow-control window of a stream, in bytes: unread request data. While handlers do not read
	// five streams of a connection, connectionWindow still has room for others: the five hold two windows together, and
	// another one each. At a round trip of 100 ms it allows 640 kB/s.
	streamWindow = 64 << 10
	// maxFrame is SETTINGS_MAX_FRAME_SIZE, in bytes: the smallest value that HTTP/2 allows
	// (https://www.rfc-editor.org/rfc/rfc9113#section-4.2). net/http allocates a whole frame once its header has
	// arrived.
	maxFrame = 16 << 10
	// connectionWindow is the flow-control window of a connection, in bytes.
	connectionWindow = 512 << 10
)

// Options are the limits and timeouts of a server. 0 means the default of net/http, or no limit if net/http has none.
type Options struct {
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
	http     *http.Server
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
	if options.TLS != nil {
		listener = &tlsListener{listener, options.TLS}
		handler = withTLS(handler)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // With TLS too: see tlsListener.
	return &Server{
		listener: newLimitListener(wire.NewListener(listener, streamWindow), options.MaxConnections, options.ClientShare),
		http: &http.Server{
			Handler:     handler,
			ConnContext: withTLSState,
			Protocols:   &protocols,
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
				MaxReceiveBufferPerStream:     wire.StreamBuffer,
				MaxReceiveBufferPerConnection: connectionWindow,
			},
			ErrorLog: slog.NewLogLogger(options.Logger.Handler(), slog.LevelDebug),
		},
	}, nil
}

// Connections returns the number of open connections.
func (s *Server) Connections() int64 {
	return s.listener.shares.InUse()
}

// Refused returns the number of connections closed at once because of ClientShare.
func (s *Server) Refused() int64 {
	return s.listener.refused.Load()
}

// Addr returns the listen address.
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

// Close closes the listener and all connections immediately.
func (s *Server) Close() error {
	err := s.http.Close()
	if listenerErr := s.listener.Close(); !errors.Is(listenerErr, net.ErrClosed) {
		err = errors.Join(err, listenerErr)
	}
	return err
}

// Shutdown is a graceful shutdown: it stops accepting, and waits for the requests in flight. If ctx ends first, it
// returns the error of ctx, and the remaining connections stay open until Close.
func (s *Server) Shutdown(ctx context.Context) error {
	return s.http.Shutdown(ctx)
}
