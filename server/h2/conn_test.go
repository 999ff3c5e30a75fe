package h2_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"example.com/routeguide/server/h2"
)

// The server's preface says what it allows, and acknowledges the client's settings.
func TestPreface(t *testing.T) {
	t.Parallel()
	c := dial(t, serve(t, &h2.Server{MaxStreams: 7, StreamWindow: 12345, MaxHeaderBytes: 6789, Handler: http.NotFoundHandler()}))
	first := c.await(http2.FrameSettings, 0)
	want := map[http2.SettingID]uint32{
		http2.SettingMaxConcurrentStreams: 7, http2.SettingInitialWindowSize: 12345, http2.SettingMaxHeaderListSize: 6789,
	}
	if fmt.Sprint(first.settings) != fmt.Sprint(want) {
		t.Errorf("the settings are %v, want %v", first.settings, want)
	}
	if ack := c.await(http2.FrameSettings, 0); !ack.Flags.Has(http2.FlagSettingsAck) {
		t.Error("the client's settings are not acknowledged")
	}
}

// Frames that break the rules of RFC 9113 end the connection with the code that it names.
func TestFrameErrors(t *testing.T) {
	t.Parallel()
	raw := func(kind http2.FrameType, flags http2.Flags, stream uint32, size int) func(c *client) {
		return func(c *client) { c.must(c.WriteRawFrame(kind, flags, stream, make([]byte, size))) }
	}
	setting := func(id http2.SettingID, value uint32) func(c *client) {
		return func(c *client) { c.must(c.WriteSettings(http2.Setting{ID: id, Val: value})) }
	}
	for name, test := range map[string]struct {
		code http2.ErrCode
		send func(c *client)
	}{
		"frame that is too large":         {http2.ErrCodeFrameSize, raw(http2.FrameData, 0, 1, 16<<10+1)},
		"DATA on stream 0":                {http2.ErrCodeProtocol, raw(http2.FrameData, 0, 0, 1)},
		"DATA on an idle stream":          {http2.ErrCodeProtocol, raw(http2.FrameData, 0, 1, 1)},
		"DATA without its padding length": {http2.ErrCodeFrameSize, raw(http2.FrameData, http2.FlagDataPadded, 1, 0)},
		"DATA with too much padding": {http2.ErrCodeProtocol, func(c *client) {
			c.post(1, "/")
			c.must(c.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{1}))
		}},
		"RST_STREAM on stream 0":          {http2.ErrCodeProtocol, raw(http2.FrameRSTStream, 0, 0, 4)},
		"RST_STREAM on an idle stream":    {http2.ErrCodeProtocol, raw(http2.FrameRSTStream, 0, 1, 4)},
		"RST_STREAM of a wrong size":      {http2.ErrCodeFrameSize, raw(http2.FrameRSTStream, 0, 1, 5)},
		"SETTINGS on a stream":            {http2.ErrCodeProtocol, raw(http2.FrameSettings, 0, 1, 0)},
		"SETTINGS of a wrong size":        {http2.ErrCodeFrameSize, raw(http2.FrameSettings, 0, 0, 5)},
		"acknowledgement with settings":   {http2.ErrCodeFrameSize, raw(http2.FrameSettings, http2.FlagSettingsAck, 0, 6)},
		"push that is neither on nor off": {http2.ErrCodeProtocol, setting(http2.SettingEnablePush, 2)},
		"window that is too large":        {http2.ErrCodeFlowControl, setting(http2.SettingInitialWindowSize, 1<<31)},
		"maximal frame that is too small": {http2.ErrCodeProtocol, setting(http2.SettingMaxFrameSize, 1<<14-1)},
		"maximal frame that is too large": {http2.ErrCodeProtocol, setting(http2.SettingMaxFrameSize, 1<<24)},
		"PING on a stream":                {http2.ErrCodeProtocol, raw(http2.FramePing, 0, 1, 8)},
		"PING of a wrong size":            {http2.ErrCodeFrameSize, raw(http2.FramePing, 0, 0, 7)},
		"GOAWAY on a stream":              {http2.ErrCodeProtocol, raw(http2.FrameGoAway, 0, 1, 8)},
		"GOAWAY of a wrong size":          {http2.ErrCodeFrameSize, raw(http2.FrameGoAway, 0, 0, 7)},
		"WINDOW_UPDATE on an idle stream": {http2.ErrCodeProtocol, func(c *client) { c.must(c.WriteWindowUpdate(1, 1)) }},
		"WINDOW_UPDATE of a wrong size":   {http2.ErrCodeFrameSize, raw(http2.FrameWindowUpdate, 0, 0, 3)},
		"WINDOW_UPDATE of nothing":        {http2.ErrCodeProtocol, raw(http2.FrameWindowUpdate, 0, 0, 4)},
		"WINDOW_UPDATE beyond the limit":  {http2.ErrCodeFlowControl, func(c *client) { c.must(c.WriteWindowUpdate(0, 1<<31-1)) }},
		"PRIORITY on stream 0":            {http2.ErrCodeProtocol, raw(http2.FramePriority, 0, 0, 5)},
		"settings that overflow the windows": {http2.ErrCodeFlowControl, func(c *client) {
			c.post(1, "/")
			c.must(c.WriteWindowUpdate(1, 1<<31-1-65535))
			setting(http2.SettingInitialWindowSize, 65536)(c)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, handle(t, func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() }))
			test.send(c)
			c.awaitFailure(test.code)
		})
	}
}

// Errors of a stream reset it, and the connection goes on.
func TestStreamErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		code http2.ErrCode
		send func(c *client)
	}{
		"PRIORITY of a wrong size":       {http2.ErrCodeFrameSize, func(c *client) { c.must(c.WriteRawFrame(http2.FramePriority, 0, 1, make([]byte, 4))) }},
		"PRIORITY on itself":             {http2.ErrCodeProtocol, func(c *client) { c.must(c.WritePriority(1, http2.PriorityParam{StreamDep: 1})) }},
		"WINDOW_UPDATE of nothing":       {http2.ErrCodeProtocol, func(c *client) { c.must(c.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4))) }},
		"WINDOW_UPDATE beyond the limit": {http2.ErrCodeFlowControl, func(c *client) { c.must(c.WriteWindowUpdate(1, 1<<31-1)) }},
		"DATA after the end": {http2.ErrCodeStreamClosed, func(c *client) {
			c.data(1, true, nil)
			c.data(1, false, []byte("a"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, handle(t, func(_ http.ResponseWriter, request *http.Request) {
				if request.URL.Path != "/next" {
					<-request.Context().Done()
				}
			}))
			c.post(1, "/")
			test.send(c)
			c.awaitReset(1, test.code)
			c.get(3, "/next")
			c.awaitAnswer(3)
		})
	}
}

// A connection that does not begin with SETTINGS fails.
func TestFirstFrameIsSettings(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", "\x00\x00\x00\x04\x01\x00\x00\x00\x00"} {
		conn, err := net.Dial("tcp", handle(t, http.NotFound))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, http2.ClientPreface+first); err != nil {
			t.Fatal(err)
		}
		framer := http2.NewFramer(nil, conn)
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if goAway, ok := frame.(*http2.GoAwayFrame); ok {
				if goAway.ErrCode != http2.ErrCodeProtocol {
					t.Errorf("the connection fails with %v", goAway.ErrCode)
				}
				break
			}
		}
	}
}

// A client has ReadHeaderTimeout for its preface with SETTINGS, for a frame, and for a header block with all its frames, however
// it divides them. It may be silent between them, also after a block of several frames.
func TestReadHeaderTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 10 * time.Second
	settings := http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	block := "\x82\x86\x84" // GET http:/
	for name, test := range map[string]struct {
		sent, drip string
		times      bool // whether the server ends the connection in time
	}{
		"nothing":                  {"", "", true},
		"preface in part":          {http2.ClientPreface[:20], "", true},
		"preface in drips":         {"", http2.ClientPreface, true},
		"preface without SETTINGS": {http2.ClientPreface, "", true},
		"frame header in part":     {settings + "\x00\x00\x08\x06", "", true},
		"frame header in drips":    {settings, "\x00\x00\x08", true},
		"PING in part":             {settings + "\x00\x00\x08\x06\x00\x00\x00\x00\x00123", "", true},
		"PING in drips":            {settings, "\x00\x00\x08\x06\x00\x00\x00\x00\x00123", true},
		"HEADERS in part":          {settings + "\x00\x00\x03\x01\x05\x00\x00\x00\x01" + block[:2], "", true},
		"block in part":            {settings + "\x00\x00\x03\x01\x01\x00\x00\x00\x01" + block, "", true},
		"block in drips":           {settings + "\x00\x00\x00\x01\x01\x00\x00\x00\x01", strings.Repeat("\x00\x00\x00\x09\x00\x00\x00\x00\x01", 3), true},
		"whole frames":             {settings + "\x00\x00\x03\x01\x05\x00\x00\x00\x01" + block, "", false},
		"whole block in parts":     {settings + "\x00\x00\x02\x01\x01\x00\x00\x00\x01" + block[:2] + "\x00\x00\x01\x09\x04\x00\x00\x00\x01" + block[2:], "", false},
		"DATA in part":             {settings + "\x00\x00\x03\x01\x04\x00\x00\x00\x01" + block + "\x00\x00\x05\x00\x00\x00\x00\x00\x01abc", "", false},
		"whole frames in drips":    {settings, strings.Repeat("\x00\x00\x08\x06\x01\x00\x00\x00\x0012345678", 10), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pipes := servePipes(t, &h2.Server{ReadHeaderTimeout: timeout, Handler: http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
					<-request.Context().Done()
				})})
				conn := pipes.Dial(t)
				begin := time.Now()
				ended := make(chan struct{})
				go func() {
					_, _ = io.Copy(io.Discard, conn)
					close(ended)
				}()
				if _, err := io.WriteString(conn, test.sent); err != nil {
					t.Error(err)
				}
				for i := range test.drip {
					time.Sleep(timeout / 20)
					if _, err := io.WriteString(conn, test.drip[i:i+1]); err != nil {
						break // The server has ended the connection.
					}
				}
				if !test.times {
					time.Sleep(10 * timeout)
					synctest.Wait()
					select {
					case <-ended:
						t.Error("the server ends the connection")
					default:
					}
					_ = conn.Close()
				}
				<-ended
				if passed := time.Since(begin); test.times && (passed < timeout || passed > timeout+timeout/2) {
					t.Errorf("the server ends the connection after %v", passed)
				}
			})
		})
	}
}

// A silent client is sent a PING after PingInterval, and has PingTimeout for any frame.
func TestPingInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipes := servePipes(t, &h2.Server{PingInterval: time.Minute, PingTimeout: 10 * time.Second, Handler: http.NotFoundHandler()})
		c := newClient(t, pipes.Dial(t))
		_ = c.SetDeadline(time.Time{})
		c.sync()
		begin := time.Now()
		for range 3 {
			c.await(http2.FramePing, 0)
			c.must(c.WritePing(true, [8]byte{}))
		}
		if passed := time.Since(begin); passed < 3*time.Minute || passed > 3*time.Minute+10*time.Second {
			t.Errorf("three PINGs come in %v", passed)
		}
		c.await(http2.FramePing, 0)
		begin = time.Now()
		c.awaitEnd()
		if passed := time.Since(begin); passed < 10*time.Second || passed > 15*time.Second {
			t.Errorf("the connection ends %v after a PING without an answer", passed)
		}
	})
}

// A connection without a stream ends after IdleTimeout, with GOAWAY.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipes := servePipes(t, &h2.Server{IdleTimeout: time.Minute, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			time.Sleep(time.Hour)
		})})
		c := newClient(t, pipes.Dial(t))
		_ = c.SetDeadline(time.Time{})
		c.get(1, "/")
		c.awaitAnswer(1)
		begin := time.Now()
		c.await(http2.FrameGoAway, 0)
		if passed := time.Since(begin); passed < 59*time.Second || passed > 62*time.Second { // The watchdog looks once a second.
			t.Errorf("the connection is idle for %v", passed)
		}
		c.awaitFailure(http2.ErrCodeNo) // Without an answer to the PING, too.
	})
}

// states records the calls of ConnState.
type states struct {
	mu     sync.Mutex
	byConn map[net.Conn][]http.ConnState
	idle   chan net.Conn // that have become idle
	closed chan net.Conn
}

func newStates() *states {
	return &states{byConn: make(map[net.Conn][]http.ConnState), idle: make(chan net.Conn, 10), closed: make(chan net.Conn, 10)}
}

func (s *states) add(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byConn[conn] = append(s.byConn[conn], state)
	if state == http.StateIdle {
		s.idle <- conn
	}
	if state == http.StateClosed {
		s.closed <- conn
	}
}

// awaitClosed waits for the end of a connection, and returns its states, the last of them http.StateClosed.
func (s *states) awaitClosed() []http.ConnState {
	conn := <-s.closed
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byConn[conn]
}

// ConnState is called for each change of a connection: of HTTP/2, also if the request comes in parts, of HTTP/1.1, and of neither.
func TestConnState(t *testing.T) {
	t.Parallel()
	full := []http.ConnState{http.StateNew, http.StateActive, http.StateIdle, http.StateActive, http.StateIdle, http.StateClosed}
	states := newStates()
	address := serve(t, &h2.Server{ConnState: states.add, Handler: http.NotFoundHandler()})
	c := dial(t, address)
	c.get(1, "/")
	c.awaitAnswer(1)
	<-states.idle
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: c.write(request(http.MethodPost, "/")...)}), c.WriteContinuation(3, true, nil))
	c.awaitAnswer(3) // Before the end of the request.
	<-states.idle
	c.close()
	if got := states.awaitClosed(); !slices.Equal(got, full) {
		t.Errorf("the states of HTTP/2 are %v", got)
	}

	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	for range 2 {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		<-states.idle
	}
	_ = conn.Close()
	if got := states.awaitClosed(); !slices.Equal(got, full) {
		t.Errorf("the states of HTTP/1.1 are %v", got)
	}

	if conn, err = net.Dial("tcp", address); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "neither\r\n\r\n")
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Errorf("neither HTTP/1.1 nor HTTP/2 gets %q, %v", rest, err)
	}
	_ = conn.Close()
	if got := states.awaitClosed(); !slices.Equal(got, []http.ConnState{http.StateNew, http.StateClosed}) {
		t.Errorf("the states of neither are %v", got)
	}
}

// The contexts of requests come from BaseContext and ConnContext, and have the local address, with both versions of HTTP.
func TestContexts(t *testing.T) {
	t.Parallel()
	type key string
	listener := listen(t)
	start(t, &h2.Server{
		BaseContext: func(net.Listener) context.Context { return context.WithValue(context.Background(), key("base"), "b") },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, key("conn"), conn.RemoteAddr().String())
		},
		Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			ctx := request.Context()
			_, _ = fmt.Fprintln(response, ctx.Value(key("base")), ctx.Value(key("conn")) == request.RemoteAddr, ctx.Value(http.LocalAddrContextKey))
		}),
	}, listener)
	for version, protocols := range clearProtocols() {
		if got, want := fetch(t, listener.Addr().String(), protocols), fmt.Sprintln("b", true, listener.Addr()); got != want {
			t.Errorf("HTTP/%d: the context has %q, want %q", version, got, want)
		}
	}
}
