package wire_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"example.com/routeguide/internal/rawhttp2"
	"example.com/routeguide/server/wire"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// countingListener counts the writes to its connections.
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

// serve serves a handler over h2c for the length of the test, and counts the writes to sockets.
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

func frames(t *testing.T, ctx context.Context) *wire.Envelopes {
	t.Helper()
	stream, ok := wire.FromContext(ctx)
	if !ok {
		t.Error("there is no stream in the context")
		return nil
	}
	frames, ok := stream.Envelopes()
	if !ok {
		t.Error("the stream has no frames")
	}
	return frames
}

func TestAHistoryOfAThousandNotesIsAFewWrites(t *testing.T) {
	t.Parallel()
	const count = 1000
	message := []byte(strings.Repeat("n", 45))
	url, client, writes := serve(t, func(response http.ResponseWriter, request *http.Request) {
		if err := http.NewResponseController(response).Flush(); err != nil {
			t.Error(err)
		}
		frames := frames(t, request.Context())
		for range count {
			if err := frames.Write(message); err != nil {
				t.Error(err)
			}
		}
		if err := frames.Flush(); err != nil {
			t.Error(err)
		}
	})
	response := post(t, client, url, "application/grpc", strings.NewReader(""))
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	one := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	if want := bytes.Repeat(one, count); !bytes.Equal(body, want) {
		t.Errorf("got %d bytes, want %d, of %d frames", len(body), len(want), count)
	}
	// 50,000 bytes are four frames of HTTP/2; then there are its settings, headers and the end.
	if got := writes.Load(); got > 16 {
		t.Errorf("%d notes took %d writes to the socket, want a few", count, got)
	}
}

func TestAFlushIsSeenBeforeTheHandlerReturns(t *testing.T) {
	t.Parallel()
	seen := make(chan struct{})
	url, client, _ := serve(t, func(response http.ResponseWriter, request *http.Request) {
		if err := http.NewResponseController(response).Flush(); err != nil {
			t.Error(err)
		}
		frames := frames(t, request.Context())
		if err := errors.Join(frames.Write([]byte("now")), frames.Flush(), frames.Flush()); err != nil {
			t.Error(err)
		}
		<-seen
		response.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	response := post(t, client, url, "application/connect+proto", strings.NewReader(""))
	frame := make([]byte, 8)
	if _, err := io.ReadFull(response.Body, frame); err != nil || string(frame) != "\x00\x00\x00\x00\x03now" {
		t.Errorf("got %q, %v", frame, err)
	}
	close(seen)
	if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v after the frame", rest, err)
	}
	if got := response.Trailer.Get("Grpc-Status"); got != "0" {
		t.Errorf("the trailer is %q", got)
	}
}

func TestAMessageLargerThanTheBufferIsAFrame(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("large"), 100_000)
	url, client, _ := serve(t, func(_ http.ResponseWriter, request *http.Request) {
		frames := frames(t, request.Context())
		if err := errors.Join(frames.Write([]byte("a")), frames.Write(large), frames.Write([]byte("b")), frames.Flush()); err != nil {
			t.Error(err)
		}
	})
	body, err := io.ReadAll(post(t, client, url, "application/grpc-web+proto", strings.NewReader("")).Body)
	if want := 3*5 + 2 + len(large); err != nil || len(body) != want {
		t.Errorf("got %d bytes, %v, want %d", len(body), err, want)
	}
}

func TestStopReadingEndsReadingAndNotWriting(t *testing.T) {
	t.Parallel()
	url, client, _ := serve(t, func(_ http.ResponseWriter, request *http.Request) {
		frames := frames(t, request.Context())
		first := make([]byte, 5)
		if _, err := io.ReadFull(request.Body, first); err != nil || string(first) != "hello" {
			t.Errorf("got %q, %v", first, err)
		}
		stream, _ := wire.FromContext(request.Context())
		cause := errors.New("the cause")
		if err := stream.StopReading(cause); err != nil {
			t.Error(err)
		}
		if n, err := request.Body.Read(first); n > 0 || !errors.Is(err, cause) {
			t.Errorf("read %d bytes, %v after StopReading, want its cause", n, err)
		}
		if err := errors.Join(frames.Write([]byte("bye")), frames.Flush()); err != nil {
			t.Error(err)
		}
	})
	body, write := io.Pipe()
	defer write.Close()
	go func() { _, _ = write.Write([]byte("hello")) }()
	got, err := io.ReadAll(post(t, client, url, "application/grpc+proto", body).Body)
	if err != nil || string(got) != "\x00\x00\x00\x00\x03bye" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOnlyBinaryStreamsHaveFrames(t *testing.T) {
	t.Parallel()
	for contentType, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true,
		"application/grpc-web": true, "application/grpc-web+proto": true,
		"application/connect+proto": true,
		"application/grpc+json":     false, "application/connect+json": false,
		"application/grpc-web-text": false, "application/proto": false, "": false,
	} {
		request := httptest.NewRequest(http.MethodPost, "/", nil)
		request.Header.Set("Content-Type", contentType)
		wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			stream, _ := wire.FromContext(request.Context())
			if _, got := stream.Envelopes(); got != want {
				t.Errorf("%q has frames: %v, want %v", contentType, got, want)
			}
		})).ServeHTTP(httptest.NewRecorder(), request)
	}
	if _, ok := wire.FromContext(t.Context()); ok {
		t.Error("a context without a request has a stream")
	}
}

// discard is a response that goes nowhere.
type discard struct{ http.ResponseWriter }

func (discard) Write(p []byte) (int, error)      { return len(p), nil }
func (discard) FlushError() error                { return nil }
func (discard) Flush()                           {}
func (discard) SetReadDeadline(time.Time) error  { return nil }
func (discard) SetWriteDeadline(time.Time) error { return nil }

func TestAFrameTakesNoAllocation(t *testing.T) {
	message := []byte(strings.Repeat("n", 45))
	request := httptest.NewRequest(http.MethodPost, "/", nil)
	request.Header.Set("Content-Type", "application/grpc")
	wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		frames := frames(t, request.Context())
		allocations := testing.AllocsPerRun(100, func() {
			for range 300 {
				if err := frames.Write(message); err != nil {
					t.Error(err)
				}
			}
		})
		if allocations > 0 {
			t.Errorf("300 frames take %v allocations, want none", allocations)
		}
	})).ServeHTTP(discard{httptest.NewRecorder()}, request)
}

func BenchmarkFrames(b *testing.B) {
	message := []byte(strings.Repeat("n", 45))
	request := httptest.NewRequest(http.MethodPost, "/", nil)
	request.Header.Set("Content-Type", "application/grpc")
	wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		stream, _ := wire.FromContext(request.Context())
		frames, _ := stream.Envelopes()
		b.ReportAllocs()
		b.SetBytes(int64(len(message)))
		for b.Loop() {
			if err := frames.Write(message); err != nil {
				b.Fatal(err)
			}
		}
	})).ServeHTTP(discard{httptest.NewRecorder()}, request)
}

// prefixed returns a message as it comes in a stream.
func prefixed(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

func TestWhatIsNotForFramesIsLeftForConnect(t *testing.T) {
	t.Parallel()
	var plain []string
	for _, size := range []int{1, 0, 100, 123, 124, 1000, 4000, 1, 2} {
		plain = append(plain, strings.Repeat("m", size))
	}
	for name, rest := range map[string]string{
		"the end":               "",
		"half a prefix":         "\x00\x00",
		"half a message":        prefixed(0, "message")[:8],
		"a compressed message":  prefixed(1, "message") + prefixed(0, "more"),
		"the end of a protocol": prefixed(2, "{}"),
		"a long message":        prefixed(0, strings.Repeat("m", 100_000)) + prefixed(0, "more"),
	} {
		var got []string
		var left []byte
		url, client, _ := serve(t, func(_ http.ResponseWriter, request *http.Request) {
			frames := frames(t, request.Context())
			for {
				message, ok := frames.Receive()
				if !ok {
					break
				}
				got = append(got, string(message))
			}
			var err error
			if left, err = io.ReadAll(request.Body); err != nil {
				t.Error(err)
			}
		})
		var sent strings.Builder
		for _, message := range plain {
			sent.WriteString(prefixed(0, message))
		}
		sent.WriteString(rest)
		if _, err := io.ReadAll(post(t, client, url, "application/grpc", strings.NewReader(sent.String())).Body); err != nil {
			t.Error(err)
		}
		if !slices.Equal(got, plain) {
			t.Errorf("%s: received %d messages, want the %d that were sent", name, len(got), len(plain))
		}
		if string(left) != rest {
			t.Errorf("%s: %d bytes are left for Connect, want %d", name, len(left), len(rest))
		}
	}
}

// dialRaw opens a connection of HTTP/2 that is read and written frame by frame.
func dialRaw(t *testing.T, url string) *rawhttp2.Conn {
	t.Helper()
	conn, err := rawhttp2.Dial(strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestTheAnswerToAPingIsNotWrittenBetweenHeaders(t *testing.T) {
	t.Parallel()
	// Headers of 40 KB are a HEADERS frame and two CONTINUATION.
	url, _, _ := serve(t, func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Long", strings.Repeat("~", 40_000))
	})
	conn := dialRaw(t, url)
	const streams = 200
	for i := range uint32(streams) {
		if err := errors.Join(conn.Open(2*i+1, "/", "text/plain"), conn.WriteData(2*i+1, true, nil), conn.WritePing(false, [8]byte{byte(i)})); err != nil {
			t.Fatal(err)
		}
		// The framer's reader says when something comes between the parts of a block.
		for pinged, ended := false, false; !pinged || !ended; {
			frame, err := conn.ReadFrame()
			if err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
			switch frame := frame.(type) {
			case *http2.PingFrame:
				pinged = true
			case *http2.HeadersFrame:
				ended = ended || frame.StreamEnded()
			case *http2.DataFrame:
				ended = ended || frame.StreamEnded()
			}
		}
	}
}

func TestManyPingsAtOnceAreAnsweredToWhoReads(t *testing.T) {
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
	for answered := 0; answered < count; {
		frame, err := conn.ReadFrame()
		if err != nil {
			t.Fatalf("%d of %d PINGs were answered: %v", answered, count, err)
		}
		if ping, ok := frame.(*http2.PingFrame); ok {
			if got := int(ping.Data[0]) | int(ping.Data[1])<<8; got != answered {
				t.Fatalf("the answer %d is to PING %d", answered, got)
			}
			answered++
		}
	}
}
