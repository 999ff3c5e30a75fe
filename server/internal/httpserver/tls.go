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

// TLSFiles are what TLS needs, in PEM. They are read again when they have changed.
type TLSFiles struct {
	// Certificate and Key are the server's. The certificate's file has those up to the authority too.
	Certificate, Key string
	// ClientCA has the certificates of the authorities one of which a client's own must be from. It is
	// empty if clients need none.
	ClientCA string
}

// Config returns the server's side of TLS: 1.2 or 1.3, with what HTTP/2 allows of it
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

// tlsListener returns connections of TLS. net/http does not see that they are: it tells the protocols apart
// by their first bytes, as it does in clear, and so the frames can be read and written as they are in clear.
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

// tlsConn tells who speaks HTTP in clear that this is TLS.
type tlsConn struct {
	*tls.Conn

	told bool // only Read looks at it
}

func (c *tlsConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if notTLS, ok := errors.AsType[tls.RecordHeaderError](err); ok && notTLS.Conn != nil && isHTTP(notTLS.RecordHeader) && !c.told {
		c.told = true
		_, _ = notTLS.Conn.Write([]byte("HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis port speaks TLS: use https.\n"))
	}
	return n, err
}

type tlsStateKey struct{}

// withTLSState is http.Server.ConnContext: it keeps the way to the state of a connection of TLS for withTLS. The handshake
// is yet to come.
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

// withTLS sets http.Request.TLS, as net/http would if it saw that the connection is one of TLS.
func withTLS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if state, ok := request.Context().Value(tlsStateKey{}).(func() *tls.ConnectionState); ok {
			request.TLS = state()
		}
		next.ServeHTTP(response, request)
	})
}

// isHTTP returns whether a connection begins like a request in clear.
func isHTTP(start [5]byte) bool {
	switch string(start[:]) {
	case "GET /", "POST ", "PUT /", "HEAD ", "OPTIO", "PRI *":
		return true
	default:
		return false
	}
}
