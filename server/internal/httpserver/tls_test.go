package httpserver_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"os"
	"testing"

	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/server/internal/httpserver"
)

// request.TLS is the state of the connection, as with net/http's own TLS.
func TestRequestTLSIsSet(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, options httpserver.Options) {
		certificate, key := certtest.SelfSigned(t)
		config, err := (&httpserver.TLSFiles{Certificate: certificate, Key: key, ClientCA: certificate}).Config(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		states := make(chan *tls.ConnectionState, 1)
		options.TLS = config
		server := start(t, http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			states <- request.TLS
		}), options)
		pem, err := os.ReadFile(certificate)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		own, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			t.Fatal(err)
		}
		for major, protocol := range map[int]string{1: "", 2: "h2"} { // For HTTP/1.1, Go's client sends no ALPN.
			var protocols http.Protocols
			protocols.SetHTTP1(major == 1)
			protocols.SetHTTP2(major == 2)
			transport := &http.Transport{
				Protocols:       &protocols,
				TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}},
			}
			var first *tls.ConnectionState
			for range 2 {
				response, err := (&http.Client{Transport: transport}).Get("https://" + server.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				state := <-states
				if state == nil || !state.HandshakeComplete || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != protocol ||
					len(state.PeerCertificates) != 1 || state.PeerCertificates[0].Subject.CommonName != "certtest" || len(state.VerifiedChains) == 0 {
					t.Fatalf("HTTP/%d: request.TLS is %+v", major, state)
				}
				if first != nil && first != state {
					t.Errorf("HTTP/%d: requests of one connection do not share the state", major)
				}
				first = state
			}
			transport.CloseIdleConnections()
		}
	})
}

func TestRequestTLSIsNilInCleartext(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, options httpserver.Options) {
		states := make(chan *tls.ConnectionState, 1)
		server := start(t, http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) { states <- request.TLS }), options)
		var two http.Protocols
		two.SetUnencryptedHTTP2(true)
		get(t, server, &two)
		if state := <-states; state != nil {
			t.Errorf("request.TLS is %+v", state)
		}
	})
}
