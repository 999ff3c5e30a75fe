package httpserver_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"example.com/routeguide/internal/rawhttp2"
	"example.com/routeguide/server/internal/httpserver"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// onEachServer runs a test on each HTTP/2 server. The options choose the server.
func onEachServer(t *testing.T, test func(*testing.T, httpserver.Options)) {
	t.Helper()
	for name, options := range map[string]httpserver.Options{"native": {}, "net/http": {NetHTTP: true}} {
		options.MaxStreams = 1000
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, options)
		})
	}
}

// start serves a handler until the test ends.
func start(t *testing.T, handler http.Handler, options httpserver.Options) *httpserver.Server {
	t.Helper()
	server, err := httpserver.Listen(t.Context(), "127.0.0.1:0", handler, options)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(server.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
	})
	return server
}

func get(t *testing.T, server *httpserver.Server, protocols *http.Protocols) *http.Response {
	t.Helper()
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Error(err)
	}
	return response
}

func TestServerSpeaksHTTP1AndHTTP2OnOnePort(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, options httpserver.Options) {
		server := start(t, http.NotFoundHandler(), options)
		var one, two http.Protocols
		one.SetHTTP1(true)
		two.SetUnencryptedHTTP2(true)
		if got := get(t, server, &one).ProtoMajor; got != 1 {
			t.Errorf("an HTTP/1.1 client gets HTTP/%d", got)
		}
		if got := get(t, server, &two).ProtoMajor; got != 2 {
			t.Errorf("an HTTP/2 client gets HTTP/%d", got)
		}
	})
}

// The server sends its window and its limit of streams in SETTINGS, and answers a PING.
func TestServerSettingsAndPingAck(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, options httpserver.Options) {
		server := start(t, http.NotFoundHandler(), options)
		conn, err := rawhttp2.Dial(server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.WritePing(false, [8]byte{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		settings := make(map[http2.SettingID]uint32)
		for {
			frame, err := conn.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				_ = frame.ForeachSetting(func(setting http2.Setting) error {
					settings[setting.ID] = setting.Val
					return nil
				})
			case *http2.PingFrame:
				if !frame.IsAck() || frame.Data != [8]byte{1, 2, 3} {
					t.Errorf("the PING is answered with %v", frame)
				}
				if got := settings[http2.SettingInitialWindowSize]; got != 64<<10 {
					t.Errorf("a stream's window is %d, want %d", got, 64<<10)
				}
				if got := settings[http2.SettingMaxConcurrentStreams]; got != 1000 {
					t.Errorf("a connection may have %d streams, want 1000", got)
				}
				if _, sent := settings[http2.SettingMaxFrameSize]; sent != options.NetHTTP { // Only net/http sends it.
					t.Errorf("another server than the options say has sent SETTINGS: %v", settings)
				}
				return
			}
		}
	})
}

func TestShutdownWaitsForRequests(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, options httpserver.Options) {
		started, end := make(chan struct{}), make(chan struct{})
		server, err := httpserver.Listen(t.Context(), "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(started)
			<-end
		}), options)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- server.Serve() }()
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			get(t, server, &protocols)
		}()
		<-started
		stopped := make(chan error, 1)
		go func() { stopped <- server.Shutdown(context.WithoutCancel(t.Context())) }()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		select {
		case <-stopped:
			t.Error("Shutdown does not wait for a request")
		default:
		}
		close(end)
		<-answered
		if err := <-stopped; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

func TestClientShareLimitsConnectionsOfOneClient(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, options httpserver.Options) {
		options.MaxConnections, options.ClientShare = 4, 0.5
		server, err := httpserver.Listen(t.Context(), "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), options)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- server.Serve() }()
		get := func(from string) (net.Conn, error) {
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", server.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if err == nil {
				_, err = conn.Read(make([]byte, 1000))
			}
			return conn, err
		}
		first, err := get("127.0.0.1")
		if err != nil {
			t.Error(err)
		}
		if _, err := get("127.0.0.1"); err != nil {
			t.Error(err)
		}
		if _, err := get("127.0.0.1"); err == nil {
			t.Error("a client got a third connection of four")
		}
		if _, err := get("127.0.0.2"); err != nil {
			t.Errorf("another client: %v", err)
		}
		if open, refused := server.Connections(), server.Refused(); open != 3 || refused != 1 {
			t.Errorf("%d connections are open and %d were refused, want 3 and 1", open, refused)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		for server.Connections() == 3 {
			time.Sleep(time.Millisecond)
		}
		if _, err := get("127.0.0.1"); err != nil {
			t.Errorf("after one was closed: %v", err)
		}
		if err := errors.Join(server.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
}

func TestMaxConnectionsMakesOthersWait(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, options httpserver.Options) {
		options.MaxConnections = 1
		server, err := httpserver.Listen(t.Context(), "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), options)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- server.Serve() }()
		get := func(conn net.Conn, within time.Duration) error {
			if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
				return err
			}
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				return err
			}
			_, err := conn.Read(make([]byte, 1000))
			return err
		}
		var conns [2]net.Conn
		for i := range conns {
			if conns[i], err = net.Dial("tcp", server.Addr().String()); err != nil {
				t.Fatal(err)
			}
			defer conns[i].Close()
		}
		if err := get(conns[0], 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if err := get(conns[1], 100*time.Millisecond); err == nil {
			t.Error("a second connection was served")
		}
		if open := server.Connections(); open != 1 {
			t.Errorf("%d connections are open, want 1", open)
		}
		if err := conns[0].Close(); err != nil {
			t.Fatal(err)
		}
		if err := conns[1].SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conns[1].Read(make([]byte, 1000)); err != nil {
			t.Errorf("the second connection, once the first has ended: %v", err)
		}
		if err := errors.Join(server.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
}
