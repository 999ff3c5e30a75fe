package wire_test

import (
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"example.com/routeguide/server/h2"
	"example.com/routeguide/server/wire"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// countingListener counts the Write calls on its connections.
type countingListener struct {
	net.Listener

	writes atomic.Int64
}

type countingConn struct {
	net.Conn

	writes *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{conn, &l.writes}, nil
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// serve serves a handler over h2c until the end of the test. writes counts the writes to sockets.
func serve(t *testing.T, handler http.HandlerFunc) (url string, client *http.Client, writes *atomic.Int64) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := &countingListener{Listener: inner}
	server := &h2.Server{Handler: wire.NewHandler(handler)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	var clientProtocols http.Protocols
	clientProtocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &clientProtocols}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return "http://" + inner.Addr().String(), &http.Client{Transport: transport}, &listener.writes
}

func post(t *testing.T, client *http.Client, url, contentType string, body io.Reader) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}
