package wire_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/routeguide/server/wire"
)

func envelopes(t *testing.T, ctx context.Context) *wire.Envelopes {
	t.Helper()
	stream, ok := wire.FromContext(ctx)
	if !ok {
		t.Error("no stream in the context")
		return nil
	}
	envelopes, ok := stream.Envelopes()
	if !ok {
		t.Error("the stream has no envelopes")
	}
	return envelopes
}

// Envelopes batch messages: the number of socket writes must stay far below the number of messages.
func TestEnvelopesBatchSocketWrites(t *testing.T) {
	t.Parallel()
	const count = 1000
	message := []byte(strings.Repeat("n", 45))
	url, client, writes := serve(t, func(response http.ResponseWriter, request *http.Request) {
		if err := http.NewResponseController(response).Flush(); err != nil {
			t.Error(err)
		}
		envelopes := envelopes(t, request.Context())
		for range count {
			if err := envelopes.Write(message); err != nil {
				t.Error(err)
			}
		}
		if err := envelopes.Flush(); err != nil {
			t.Error(err)
		}
	})
	response := post(t, client, url, "application/grpc", strings.NewReader(""))
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	envelope := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	if want := bytes.Repeat(envelope, count); !bytes.Equal(body, want) {
		t.Errorf("got %d bytes, want %d, of %d envelopes", len(body), len(want), count)
	}
	// 50,000 bytes are four DATA frames. SETTINGS, HEADERS and the trailers add a few writes.
	if got := writes.Load(); got > 16 {
		t.Errorf("%d notes took %d writes to the socket, want a few", count, got)
	}
}

// Flush sends the buffered envelopes while the handler still runs.
func TestEnvelopesFlushReachesClientBeforeHandlerReturns(t *testing.T) {
	t.Parallel()
	received := make(chan struct{})
	url, client, _ := serve(t, func(response http.ResponseWriter, request *http.Request) {
		if err := http.NewResponseController(response).Flush(); err != nil {
			t.Error(err)
		}
		envelopes := envelopes(t, request.Context())
		if err := errors.Join(envelopes.Write([]byte("now")), envelopes.Flush(), envelopes.Flush()); err != nil {
			t.Error(err)
		}
		<-received
		response.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	})
	response := post(t, client, url, "application/connect+proto", strings.NewReader(""))
	envelope := make([]byte, 8)
	if _, err := io.ReadFull(response.Body, envelope); err != nil || string(envelope) != "\x00\x00\x00\x00\x03now" {
		t.Errorf("got %q, %v", envelope, err)
	}
	close(received)
	if rest, err := io.ReadAll(response.Body); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v after the envelope", rest, err)
	}
	if got := response.Trailer.Get("Grpc-Status"); got != "0" {
		t.Errorf("the trailer is %q", got)
	}
}

// A message larger than the write buffer is still one envelope.
func TestEnvelopesWriteMessageLargerThanBuffer(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("large"), 100_000)
	url, client, _ := serve(t, func(_ http.ResponseWriter, request *http.Request) {
		envelopes := envelopes(t, request.Context())
		if err := errors.Join(envelopes.Write([]byte("a")), envelopes.Write(large), envelopes.Write([]byte("b")), envelopes.Flush()); err != nil {
			t.Error(err)
		}
	})
	body, err := io.ReadAll(post(t, client, url, "application/grpc-web+proto", strings.NewReader("")).Body)
	if want := 3*5 + 2 + len(large); err != nil || len(body) != want {
		t.Errorf("got %d bytes, %v, want %d", len(body), err, want)
	}
}

// Streams of binary Protobuf have envelopes; JSON, gRPC-Web text and unary requests do not.
func TestStreamEnvelopesNeedBinaryStream(t *testing.T) {
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
				t.Errorf("%q has envelopes: %v, want %v", contentType, got, want)
			}
		})).ServeHTTP(httptest.NewRecorder(), request)
	}
	if _, ok := wire.FromContext(t.Context()); ok {
		t.Error("a context without a request has a stream")
	}
}

// discard is a response that drops its body.
type discard struct{ http.ResponseWriter }

func (discard) Write(p []byte) (int, error)      { return len(p), nil }
func (discard) FlushError() error                { return nil }
func (discard) Flush()                           {}
func (discard) SetReadDeadline(time.Time) error  { return nil }
func (discard) SetWriteDeadline(time.Time) error { return nil }

func TestEnvelopesWriteDoesNotAllocate(t *testing.T) {
	message := []byte(strings.Repeat("n", 45))
	request := httptest.NewRequest(http.MethodPost, "/", nil)
	request.Header.Set("Content-Type", "application/grpc")
	wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		envelopes := envelopes(t, request.Context())
		allocations := testing.AllocsPerRun(100, func() {
			for range 300 {
				if err := envelopes.Write(message); err != nil {
					t.Error(err)
				}
			}
		})
		if allocations > 0 {
			t.Errorf("300 writes make %v allocations, want none", allocations)
		}
	})).ServeHTTP(discard{httptest.NewRecorder()}, request)
}

func BenchmarkEnvelopesWriteThroughHandler(b *testing.B) {
	message := []byte(strings.Repeat("n", 45))
	request := httptest.NewRequest(http.MethodPost, "/", nil)
	request.Header.Set("Content-Type", "application/grpc")
	wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		stream, _ := wire.FromContext(request.Context())
		envelopes, _ := stream.Envelopes()
		b.ReportAllocs()
		b.SetBytes(int64(len(message)))
		for b.Loop() {
			if err := envelopes.Write(message); err != nil {
				b.Fatal(err)
			}
		}
	})).ServeHTTP(discard{httptest.NewRecorder()}, request)
}

// prefixed returns the envelope of a message.
func prefixed(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

// Envelopes.Receive stops before anything that only Connect can read, and Connect reads on from there.
func TestEnvelopesReceiveLeavesOtherInputToConnect(t *testing.T) {
	t.Parallel()
	var plain []string
	for _, size := range []int{1, 0, 100, 123, 124, 1000, 4000, 1, 2} {
		plain = append(plain, strings.Repeat("m", size))
	}
	for name, rest := range map[string]string{
		"the end":                "",
		"half a prefix":          "\x00\x00",
		"half a message":         prefixed(0, "message")[:8],
		"a compressed message":   prefixed(1, "message") + prefixed(0, "more"),
		"end-of-stream envelope": prefixed(2, "{}"),
		"a long message":         prefixed(0, strings.Repeat("m", 100_000)) + prefixed(0, "more"),
	} {
		var got []string
		var left []byte
		url, client, _ := serve(t, func(_ http.ResponseWriter, request *http.Request) {
			envelopes := envelopes(t, request.Context())
			for {
				message, ok := envelopes.Receive()
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
