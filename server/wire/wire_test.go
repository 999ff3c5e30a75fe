package wire_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"example.com/routeguide/internal/rawhttp2"
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
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: wire.NewHandler(handler), Protocols: &protocols}
	served := make(chan error, 1)
	go func() { served <- server.Serve(wire.NewListener(listener, 0)) }()
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

// dialRaw opens an HTTP/2 connection whose frames the test reads and writes itself.
func dialRaw(t *testing.T, url string) *rawhttp2.Conn {
	t.Helper()
	conn, err := rawhttp2.Dial(strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// No PING ACK comes between a HEADERS frame and its CONTINUATION frames (RFC 9113, section 6.10).
func TestListenerKeepsPingAckOutOfHeaderBlock(t *testing.T) {
	t.Parallel()
	// 40 KB of headers are a HEADERS frame and two CONTINUATION frames.
	url, _, _ := serve(t, func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Long", strings.Repeat("~", 40_000))
	})
	conn := dialRaw(t, url)
	const streams = 200
	for i := range uint32(streams) {
		if err := errors.Join(conn.Open(2*i+1, "/", "text/plain"), conn.WriteData(2*i+1, true, nil), conn.WritePing(false, [8]byte{byte(i)})); err != nil {
			t.Fatal(err)
		}
		// ReadFrame fails if another frame splits the header block.
		for acked, ended := false, false; !acked || !ended; {
			frame, err := conn.ReadFrame()
			if err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
			switch frame := frame.(type) {
			case *http2.PingFrame:
				acked = true
			case *http2.HeadersFrame:
				ended = ended || frame.StreamEnded()
			case *http2.DataFrame:
				ended = ended || frame.StreamEnded()
			}
		}
	}
}

// A burst of PINGs is answered in full and in order if the client reads the ACKs.
func TestListenerAcksPingBurst(t *testing.T) {
	t.Parallel()
	url, _, _ := serve(t, func(http.ResponseWriter, *http.Request) {})
	conn := dialRaw(t, url)
	const count = 5000
	var pings bytes.Buffer
	writer := http2.NewFramer(&pings, nil)
	for i := range count {
		if err := writer.WritePing(false, [8]byte{byte(i), byte(i >> 8)}); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, _ = conn.Write(pings.Bytes()) }()
	for acked := 0; acked < count; {
		frame, err := conn.ReadFrame()
		if err != nil {
			t.Fatalf("%d of %d PINGs were acknowledged: %v", acked, count, err)
		}
		if ping, ok := frame.(*http2.PingFrame); ok {
			if got := int(ping.Data[0]) | int(ping.Data[1])<<8; got != acked {
				t.Fatalf("ACK %d is for PING %d", acked, got)
			}
			acked++
		}
	}
}
