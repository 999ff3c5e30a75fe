package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/internal/rawhttp2"
	"example.com/routeguide/server/internal/service"
)

// logBuffer is a log whose lines tests wait for.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed and replaced by each Write
}

func newLogBuffer() *logBuffer {
	return &logBuffer{more: make(chan struct{})}
}

func (b *logBuffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.more)
	b.more = make(chan struct{})
	return b.text.Write(line)
}

// await waits until the log matches pattern, and returns the match.
func (b *logBuffer) await(t *testing.T, pattern string) string {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		b.mu.Lock()
		text, more := b.text.String(), b.more
		b.mu.Unlock()
		if match := regexp.MustCompile(pattern).FindString(text); match != "" {
			return match
		}
		select {
		case <-more:
		case <-timeout:
			t.Fatalf("%q is not in the log:\n%s", pattern, text)
		}
	}
}

// endRecorder is an interceptor that records the errors of streams, like an interceptor for metrics.
type endRecorder struct {
	holdEOF bool // delay the EOF of requests until their contexts have ended: later frames have then arrived
	ended   chan error
}

func (r *endRecorder) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (r *endRecorder) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (r *endRecorder) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if r.holdEOF {
			conn = &heldConn{conn, ctx}
		}
		err := next(ctx, conn)
		r.ended <- err
		return err
	}
}

type heldConn struct {
	connect.StreamingHandlerConn

	ctx context.Context //nolint:containedctx // A heldConn lives as long as its call.
}

func (c *heldConn) Receive(message any) error {
	err := c.StreamingHandlerConn.Receive(message)
	if errors.Is(err, io.EOF) {
		<-c.ctx.Done()
	}
	return err
}

// startLogged serves RouteGuide with a log and an endRecorder.
func startLogged(t *testing.T, holdEOF bool) (address string, running *service.Service, log *logBuffer, recorder *endRecorder) {
	t.Helper()
	log = newLogBuffer()
	recorder = &endRecorder{holdEOF: holdEOF, ended: make(chan error, 1)}
	options := bounded()
	options.Logger = slog.New(slog.NewTextHandler(log, nil))
	options.Interceptors = []connect.Interceptor{recorder}
	url, running := startWith(t, options)
	return strings.TrimPrefix(url, "http://"), running, log, recorder
}

// rawCall opens a call frame by frame and sends a message.
func rawCall(t *testing.T, address, path, contentType string, message []byte, settings ...http2.Setting) *rawhttp2.Conn {
	t.Helper()
	conn, err := rawhttp2.Dial(address, settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := errors.Join(conn.Open(1, path, contentType), conn.WriteData(1, false, envelope(message))); err != nil {
		t.Fatal(err)
	}
	return conn
}

// awaitData reads until the server has sent at least minBytes of DATA.
func awaitData(t *testing.T, conn *rawhttp2.Conn, minBytes int) {
	t.Helper()
	for got := 0; got < minBytes; {
		frame, err := conn.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := frame.(*http2.DataFrame); ok {
			got += len(data.Data())
		}
	}
}

// encodedNote returns a note in the codec of a content type.
func encodedNote(t *testing.T, contentType string) []byte {
	t.Helper()
	if strings.HasSuffix(contentType, "json") {
		return []byte(`{"location": {"longitude": 1}, "message": "a"}`)
	}
	encoded, err := proto.Marshal(note(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// A call is CANCELED if its response cannot reach the client. HAProxy sends END_STREAM and RST_STREAM for a
// call that it ends after an idle timeout, and for one whose client has gone.
func TestClientGoneMakesCallCanceled(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*rawhttp2.Conn) error{
		"END_STREAM and RST_STREAM": func(conn *rawhttp2.Conn) error {
			return errors.Join(conn.WriteData(1, true, nil), conn.WriteRSTStream(1, http2.ErrCodeCancel))
		},
		"END_STREAM and the end of the connection": func(conn *rawhttp2.Conn) error {
			return errors.Join(conn.WriteData(1, true, nil), conn.Close())
		},
		"END_STREAM and half of the connection": func(conn *rawhttp2.Conn) error {
			return errors.Join(conn.WriteData(1, true, nil), conn.Conn.(*net.TCPConn).CloseWrite())
		},
		"half of the connection": func(conn *rawhttp2.Conn) error { return conn.Conn.(*net.TCPConn).CloseWrite() },
		"RST_STREAM":             func(conn *rawhttp2.Conn) error { return conn.WriteRSTStream(1, http2.ErrCodeCancel) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, contentType := range []string{"application/grpc", "application/grpc-web", "application/connect+proto", "application/connect+json"} {
				address, _, log, recorder := startLogged(t, true)
				conn := rawCall(t, address, routeguideconnect.RouteGuideRouteChatProcedure, contentType, encodedNote(t, contentType))
				awaitData(t, conn, 1)
				if err := cut(conn); err != nil {
					t.Fatal(err)
				}
				log.await(t, `msg="chat ended" .* in=1 out=1 .* code=canceled err=.`)
				checkCode(t, <-recorder.ended, connect.CodeCanceled)
			}
			address, running, _, recorder := startLogged(t, true)
			conn := rawCall(t, address, routeguideconnect.RouteGuideRecordRouteProcedure, "application/grpc", nil)
			for running.Calls() == 0 { // A server may close a broken connection without serving what has arrived before.
				time.Sleep(time.Millisecond)
			}
			if err := cut(conn); err != nil {
				t.Fatal(err)
			}
			checkCode(t, <-recorder.ended, connect.CodeCanceled)
		})
	}
}

// The client's window holds the replies, but not the end of the chat, which is DATA in Connect's protocol and in
// gRPC-Web. The client resets the stream: the chat is CANCELED.
func TestClientGoneBeforeEndOfChatMakesChatCanceled(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"application/grpc-web", "application/connect+proto"} {
		address, _, log, recorder := startLogged(t, false)
		sent := encodedNote(t, contentType)
		size := len(envelope(sent))
		conn := rawCall(t, address, routeguideconnect.RouteGuideRouteChatProcedure, contentType, sent,
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(size)})
		awaitData(t, conn, size)
		if err := conn.WriteData(1, true, nil); err != nil {
			t.Fatal(err)
		}
		if err := <-recorder.ended; err != nil {
			t.Errorf("%s: the handler returned %v", contentType, err)
		}
		if err := conn.WriteRSTStream(1, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
		log.await(t, `msg="chat ended" .* in=1 out=1 .* code=canceled err=.*response not delivered`)
	}
}

// A chat whose response was delivered is ok, even if the client closes the connection afterwards.
func TestClientGoneAfterDeliveredResponseIsOK(t *testing.T) {
	t.Parallel()
	address, _, log, recorder := startLogged(t, false)
	if _, err := chatOf(t.Context(), dial(t, "http://"+address), note(1, "a")); err != nil {
		t.Fatal(err)
	}
	log.await(t, `msg="chat ended" .* in=1 out=1 .* code=ok\n`)
	if err := <-recorder.ended; err != nil {
		t.Error(err)
	}
}

// An HTTP/1.1 client may close its sending side, as nc -N does, and still read the response.
func TestClientGoneIgnoresHalfClosedHTTP1(t *testing.T) {
	t.Parallel()
	address, _, _, recorder := startLogged(t, true)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := envelope([]byte(`{"lo": {}, "hi": {}}`))
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/connect+json\r\nContent-Length: %d\r\n\r\n%s",
		routeguideconnect.RouteGuideListFeaturesProcedure, len(body), body)
	if err := errors.Join(err, conn.(*net.TCPConn).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Contains(got, []byte("{}")) || bytes.Contains(got, []byte("error")) {
		t.Errorf("got %q, %v, want the end of a stream without an error", got, err)
	}
	if err := <-recorder.ended; err != nil {
		t.Error(err)
	}
}
