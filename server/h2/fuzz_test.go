package h2_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"example.com/routeguide/server/h2"
)

// recorder is a listener that records what clients send.
type recorder struct {
	net.Listener

	mu       sync.Mutex // guards sessions
	sessions []*recordedConn
}

type recordedConn struct {
	net.Conn

	mu   sync.Mutex // guards sent
	sent bytes.Buffer
}

func (r *recorder) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	recorded := &recordedConn{Conn: conn}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions = append(r.sessions, recorded)
	return recorded, nil
}

func (c *recordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent.Write(p[:n])
	return n, err
}

// fuzzHandler reads and writes as the path says.
func fuzzHandler(response http.ResponseWriter, request *http.Request) {
	controller := http.NewResponseController(response)
	_ = controller.SetReadDeadline(time.Now().Add(time.Minute))
	_ = controller.SetWriteDeadline(time.Now().Add(time.Minute))
	switch {
	case strings.HasPrefix(request.URL.Path, "/wait"):
		<-request.Context().Done()
	case strings.HasPrefix(request.URL.Path, "/large"):
		_, _ = response.Write(make([]byte, 200_000))
	case strings.HasPrefix(request.URL.Path, "/panic"):
		panic(http.ErrAbortHandler)
	case strings.HasPrefix(request.URL.Path, "/early"):
		response.WriteHeader(http.StatusEarlyHints)
	default:
		response.Header().Set("Trailer", "X-Sum")
		_, _ = io.Copy(response, request.Body)
		response.Header().Set("X-Sum", "1")
	}
}

// record returns what real clients send, without the preface: net/http's with requests of several kinds, and grpc-go's.
func record(f *testing.F) [][]byte {
	f.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	server, recorder := &h2.Server{Handler: http.HandlerFunc(fuzzHandler)}, &recorder{Listener: listener}
	served := make(chan error, 1)
	go func() { served <- server.Serve(recorder) }()
	address := listener.Addr().String()
	for _, test := range []struct{ method, path, body, expect string }{
		{http.MethodGet, "/", "", ""}, {http.MethodHead, "/large", "", ""}, {http.MethodPost, "/", "body", ""}, {http.MethodPut, "/large", strings.Repeat("x", 40_000), ""},
		{http.MethodPost, "/", "body", "100-continue"}, {http.MethodGet, "/panic", "", ""}, {http.MethodGet, "/early", "", ""},
	} {
		transport := &http.Transport{Protocols: clearProtocols()[2], ExpectContinueTimeout: time.Minute}
		request, err := http.NewRequest(test.method, "http://"+address+test.path, strings.NewReader(test.body))
		if err != nil {
			f.Fatal(err)
		}
		if test.body != "" {
			request.Trailer = http.Header{"X-Sum": {"1"}}
		}
		request.Header.Set("Cookie", "a=b; c=d")
		if test.expect != "" {
			request.Header.Set("Expect", test.expect)
		}
		if response, err := (&http.Client{Transport: transport}).Do(request); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
		transport.CloseIdleConnections()
	}
	client, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.Fatal(err)
	}
	_, _ = grpc_health_v1.NewHealthClient(client).Check(f.Context(), &grpc_health_v1.HealthCheckRequest{Service: "any"})
	ctx, cancel := context.WithCancel(f.Context())
	watch, err := grpc_health_v1.NewHealthClient(client).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "any"})
	cancel()
	if err == nil {
		_, _ = watch.Recv() // The stream is reset.
	}
	if err := client.Close(); err != nil {
		f.Error(err)
	}
	if err := server.Close(); err != nil {
		f.Error(err)
	}
	<-served
	if err := server.Shutdown(f.Context()); err != nil {
		f.Error(err)
	}
	var sessions [][]byte
	for _, session := range recorder.sessions {
		if sent, ok := bytes.CutPrefix(session.sent.Bytes(), []byte(http2.ClientPreface)); ok {
			sessions = append(sessions, sent)
		}
	}
	return sessions
}

// FuzzFrames sends the input after the preface. Whatever it is, the server ends the connection in the end, and leaves nothing: a handler that
// goes on, or a goroutine that waits for nobody, would be a deadlock for synctest.
func FuzzFrames(f *testing.F) {
	for _, session := range record(f) {
		f.Add(session)
	}
	f.Add(frames(func(framer *http2.Framer) error { return framer.WriteSettings(initialWindow(1)) },
		func(framer *http2.Framer) error {
			return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(request(http.MethodGet, "/large")...), EndHeaders: true, EndStream: true})
		},
		func(framer *http2.Framer) error { return framer.WriteWindowUpdate(1, 10) },
		func(framer *http2.Framer) error {
			return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: encode(request(http.MethodPost, "/wait")...)})
		},
		func(framer *http2.Framer) error { return framer.WriteContinuation(3, true, nil) },
		func(framer *http2.Framer) error {
			return framer.WriteDataPadded(3, true, []byte("body"), make([]byte, 3))
		},
		func(framer *http2.Framer) error { return framer.WritePing(false, [8]byte{1}) },
		func(framer *http2.Framer) error { return framer.WriteRSTStream(1, http2.ErrCodeCancel) },
		func(framer *http2.Framer) error { return framer.WriteGoAway(3, http2.ErrCodeNo, nil) },
	))
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			server := &h2.Server{
				MaxStreams: 10, StreamWindow: 1000, MaxUnread: 5000, MaxHeaderBytes: 4000, ReadHeaderTimeout: time.Minute, IdleTimeout: time.Minute,
				PingInterval: time.Minute, StallTimeout: time.Minute, Handler: http.HandlerFunc(fuzzHandler),
			}
			conn := servePipes(t, server).Dial(t)
			var answer bytes.Buffer
			var reading sync.WaitGroup
			reading.Go(func() { _, _ = io.Copy(&answer, conn) })
			_ = conn.SetWriteDeadline(time.Now().Add(time.Minute))
			_, _ = conn.Write(append([]byte(http2.ClientPreface), input...)) // It fails if the server ends the connection.
			late := time.AfterFunc(time.Hour, func() {
				t.Error("the server does not end the connection")
				_ = conn.Close()
			})
			reading.Wait()
			late.Stop()
			checkFrames(t, answer.Bytes())
		})
	})
}

// frames returns frames as bytes.
func frames(write ...func(*http2.Framer) error) []byte {
	var buffer bytes.Buffer
	framer := http2.NewFramer(&buffer, nil)
	for _, write := range write {
		_ = write(framer) // Writes to a bytes.Buffer do not fail.
	}
	return buffer.Bytes()
}

// checkFrames checks that what the server has sent are whole frames.
func checkFrames(t *testing.T, sent []byte) {
	t.Helper()
	framer := http2.NewFramer(nil, bytes.NewReader(sent))
	ended := make(map[uint32]bool)
	for {
		frame, err := framer.ReadFrame()
		if err == io.EOF { //nolint:errorlint // After whole frames, it is EOF itself.
			return
		}
		if err != nil {
			t.Fatalf("the server sends %v", err)
		}
		header := frame.Header()
		isPart := header.Type == http2.FrameHeaders || header.Type == http2.FrameData
		if isPart && ended[header.StreamID] {
			t.Errorf("%v follows the end of its stream", frame)
		}
		if header.Type == http2.FrameRSTStream || isPart && header.Flags.Has(http2.FlagDataEndStream) {
			ended[header.StreamID] = true
		}
	}
}
