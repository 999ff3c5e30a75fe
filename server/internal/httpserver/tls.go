package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"example.com/routeguide/internal/credentials"
	"example.com/routeguide/server/internal/reload"
)

// TLSFiles are paths of PEM files. The files are reloaded when they change.
type TLSFiles struct {
	// Certificate and Key are the certificate chain of the server and its private key.
	Certificate, Key string
	// ClientCA has the CA certificates for client certificates (mutual TLS). Empty means that clients need none.
	ClientCA string
}

// Config returns a configuration for TLS 1.2 and 1.3, with the cipher suites that HTTP/2 allows
// (https://www.rfc-editor.org/rfc/rfc9113#section-9.2).
func (f *TLSFiles) Config(logger *slog.Logger) (*tls.Config, error) {
	paths := []string{f.Certificate, f.Key}
	if f.ClientCA != "" {
		paths = append(paths, f.ClientCA)
	}
	files, err := reload.New(f.load, logger, paths...)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return files.Get(), nil
		},
	}, nil
}

func (f *TLSFiles) load() (*tls.Config, error) {
	certificate, err := credentials.KeyPair(f.Certificate, f.Key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: []string{"h2", "http/1.1"},
	}
	if f.ClientCA != "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if config.ClientCAs, err = credentials.CertPool(f.ClientCA); err != nil {
			return nil, err
		}
	}
	return config, nil
}

// tlsListener accepts TLS connections. net/http sees them as cleartext, because a tlsConn is not a [tls.Conn]: it
// detects HTTP/2 by the client preface, and package wire can wrap the connection and see the frames.
type tlsListener struct {
	net.Listener

	config *tls.Config
}

func (l *tlsListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tlsConn{Conn: tls.Server(conn, l.config)}, nil
}

// tlsConn is a TLS connection that answers a cleartext HTTP request with an explanation.
type tlsConn struct {
	*tls.Conn

	explained bool // only Read uses it
}

func (c *tlsConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if notTLS, ok := errors.AsType[tls.RecordHeaderError](err); ok && notTLS.Conn != nil && isHTTP(notTLS.RecordHeader) && !c.explained {
		c.explained = true
		_, _ = notTLS.Conn.Write([]byte("HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis port speaks TLS: use https.\n"))
	}
	return n, err
}

type tlsStateKey struct{}

// withTLSState is for http.Server.ConnContext. It adds a function that returns the TLS state, for withTLS. It must not
// ask for the state itself, because the handshake comes later.
func withTLSState(ctx context.Context, conn net.Conn) context.Context {
	for {
		if secure, ok := conn.(*tlsConn); ok {
			return context.WithValue(ctx, tlsStateKey{}, sync.OnceValue(func() *tls.ConnectionState {
				state := secure.ConnectionState()
				return &state
			}))
		}
		wrapped, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return ctx
		}
		conn = wrapped.NetConn()
	}
}

// withTLS sets http.Request.TLS, as net/http does for connections that it knows to be TLS.
func withTLS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if state, ok := request.Context().Value(tlsStateKey{}).(func() *tls.ConnectionState); ok {
			request.TLS = state()
		}
		next.ServeHTTP(response, request)
	})
}

// isHTTP returns whether the first bytes of a connection are those of a cleartext HTTP request.
func isHTTP(start [5]byte) bool {
	switch string(start[:]) {
	case "GET /", "POST ", "PUT /", "HEAD ", "OPTIO", "PRI *":
		return true
	default:
		return false
	}
}
