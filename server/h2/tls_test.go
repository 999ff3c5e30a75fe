package h2_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/server/h2"
)

// certificates returns configurations of TLS for a server and its clients.
func certificates(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	certificate, key := certtest.SelfSigned(t)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}, &tls.Config{RootCAs: roots}
}

// dialTLS connects, and makes the handshake.
func dialTLS(t *testing.T, address string, config *tls.Config, protocol string) *tls.Conn {
	t.Helper()
	config = config.Clone()
	config.NextProtos = []string{protocol}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Over TLS, ALPN chooses the version of HTTP. Requests have the state of TLS, ConnState and ConnContext get one and the same connection,
// and the end is a proper one.
func TestTLS(t *testing.T) {
	t.Parallel()
	config, clientConfig := certificates(t)
	states := newStates()
	server := &h2.Server{TLSConfig: config, ConnState: states.add, Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		response.Header().Set("Connection", "close")
		_, _ = fmt.Fprint(response, request.Proto, request.TLS.NegotiatedProtocol)
	})}
	address := serve(t, server)
	c := newClient(t, dialTLS(t, address, clientConfig, "h2"))
	c.headers(1, true, request(http.MethodGet, "/")...)
	if a := c.awaitAnswer(1); a.body != "HTTP/2.0h2" {
		t.Errorf("the response is %q", a.body)
	}
	c.must(c.WritePing(true, c.goAwayPing()))
	c.awaitFailure(http2.ErrCodeNo)
	if c.ended != io.EOF { //nolint:errorlint // As Read returns it after close_notify.
		t.Errorf("the connection ends with %v", c.ended)
	}
	c.close()
	if got := states.awaitClosed(); !slices.Equal(got, []http.ConnState{http.StateNew, http.StateActive, http.StateIdle, http.StateClosed}) {
		t.Errorf("the states are %v", got)
	}

	conn := dialTLS(t, address, clientConfig, "http/1.1")
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(answer), "HTTP/1.1http/1.1") {
		t.Errorf("the response is %q, %v", answer, err)
	}
	if got := states.awaitClosed(); !slices.Equal(got, []http.ConnState{http.StateNew, http.StateActive, http.StateClosed}) {
		t.Errorf("the states are %v", got)
	}
}

// HTTP/2 over cipher suites that RFC 9113 forbids ends with INADEQUATE_SECURITY, and HTTP/1.1 does not.
func TestWeakCipherSuites(t *testing.T) {
	t.Parallel()
	config, clientConfig := certificates(t)
	config.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	clientConfig.MaxVersion = tls.VersionTLS12
	clientConfig.CipherSuites = config.CipherSuites[:1]
	address := serve(t, &h2.Server{TLSConfig: config, Handler: http.NotFoundHandler()})
	c := newClient(t, dialTLS(t, address, clientConfig, "h2"))
	c.awaitFailure(http2.ErrCodeInadequateSecurity)
	if more := c.arrived(http2.FrameGoAway); len(more) > 0 {
		t.Errorf("more GOAWAY frames follow: %v", more)
	}
	conn := dialTLS(t, address, clientConfig, "http/1.1")
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.0 404") {
		t.Errorf("the response is %q, %v", answer, err)
	}
	clientConfig.CipherSuites = config.CipherSuites[1:]
	c = newClient(t, dialTLS(t, address, clientConfig, "h2"))
	c.get(1, "/")
	if a := c.awaitAnswer(1); a.status != "404" {
		t.Errorf("the response is %+v", a)
	}
}

// HTTP in clear on a port of TLS is told so. Anything else, also after the handshake, ends the connection.
func TestNoTLSOnTLSPort(t *testing.T) {
	t.Parallel()
	config, clientConfig := certificates(t)
	address := serve(t, &h2.Server{TLSConfig: config, Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute})
	for text, want := range map[string]string{"GET / HTTP/1.1\r\n\r\n": "HTTP/1.0 400", http2.ClientPreface: "HTTP/1.0 400", "SSH-2.0-OpenSSH": ""} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text[:min(len(text), 5)]); err != nil { // No more: TLS reads so much, and the rest would end the connection with RST.
			t.Fatal(err)
		}
		if answer, _ := io.ReadAll(conn); !strings.HasPrefix(string(answer), want) || want == "" && len(answer) > 7 { // An alert.
			t.Errorf("%q is answered with %q", text, answer)
		}
	}
	conn := dialTLS(t, address, clientConfig, "h2")
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
	if answer, _ := io.ReadAll(conn); len(answer) > 0 {
		t.Errorf("HTTP/1.1 after ALPN of h2 is answered with %q", answer)
	}
}
