package wire_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"example.com/routeguide/server/wire"
)

// A batch reaches the clients of many streams while their handlers wait, in a few writes to the socket.
func TestBatchWritesToManyStreams(t *testing.T) {
	t.Parallel()
	const streams, messages = 50, 20
	opened, done := make(chan *wire.Stream, streams), make(chan struct{})
	url, client, writes := serve(t, func(response http.ResponseWriter, request *http.Request) {
		stream, _ := wire.FromContext(request.Context())
		if err := http.NewResponseController(response).Flush(); err != nil {
			t.Error(err)
		}
		opened <- stream
		<-done
	})
	var bodies []io.ReadCloser
	var followers []*wire.Stream
	for range streams {
		response := post(t, client, url, "application/grpc", http.NoBody)
		bodies, followers = append(bodies, response.Body), append(followers, <-opened)
	}
	var batch wire.Batch
	var want []byte
	before := writes.Load()
	for i := range messages {
		envelope := wire.AppendEnvelope(nil, bytes.Repeat([]byte{byte(i)}, i))
		want = append(want, envelope...)
		for _, follower := range followers {
			if !batch.TryWrite(follower.Queue(), envelope) {
				t.Fatal("a stream does not take a message")
			}
		}
	}
	batch.Flush()
	for _, body := range bodies {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(body, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	// All is on one connection. Its writer may have begun before the last stream was written to.
	if got := writes.Load() - before; got > streams {
		t.Errorf("%d messages took %d writes to the socket, want a few", streams*messages, got)
	}
	close(done)
	for _, body := range bodies {
		if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil {
			t.Errorf("got %q, %v after the handler has returned", rest, err)
		}
	}
	if batch.TryWrite(followers[0].Queue(), want) {
		t.Error("a stream takes a message after its end")
	}
}

// The handler must write what a batch cannot: before the response headers, and on other HTTP servers.
func TestBatchLeavesOthersToHandler(t *testing.T) {
	t.Parallel()
	try := func(_ http.ResponseWriter, request *http.Request) {
		stream, _ := wire.FromContext(request.Context())
		var batch wire.Batch
		if batch.TryWrite(stream.Queue(), wire.AppendEnvelope(nil, []byte("early"))) {
			t.Error("a batch has written")
		}
		batch.Flush()
	}
	url, client, _ := serve(t, try)
	response := post(t, client, url, "application/grpc", http.NoBody)
	if body, err := io.ReadAll(response.Body); len(body) > 0 || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
	wire.NewHandler(http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		_ = http.NewResponseController(response).Flush()
		try(response, request)
	})).ServeHTTP(httptest.NewRecorder(), newRequest(2))
}

// Envelopes writes a message without blocking where a batch does, and keeps the order of what is buffered.
func TestEnvelopesTryWrite(t *testing.T) {
	t.Parallel()
	url, client, _ := serve(t, func(response http.ResponseWriter, request *http.Request) {
		stream, _ := wire.FromContext(request.Context())
		envelopes, _ := stream.Envelopes()
		if envelopes.TryWrite([]byte("early")) {
			t.Error("wrote before the response headers")
		}
		if err := http.NewResponseController(response).Flush(); err != nil {
			t.Error(err)
		}
		if !envelopes.TryWrite([]byte("first")) {
			t.Error("did not write")
		}
		if err := envelopes.Write([]byte("second")); err != nil {
			t.Error(err)
		}
		if envelopes.TryWrite([]byte("between")) {
			t.Error("wrote ahead of a message that is buffered")
		}
		if err := envelopes.Flush(); err != nil {
			t.Error(err)
		}
		if !envelopes.TryWrite([]byte("third")) {
			t.Error("did not write after Flush")
		}
		if envelopes.TryWrite(make([]byte, 1<<20)) {
			t.Error("wrote more than the client's window")
		}
	})
	response := post(t, client, url, "application/grpc", http.NoBody)
	want := wire.AppendEnvelope(wire.AppendEnvelope(wire.AppendEnvelope(nil, []byte("first")), []byte("second")), []byte("third"))
	if got, err := io.ReadAll(response.Body); !bytes.Equal(got, want) || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// Envelopes that have arrived with the one that was received are buffered.
func TestEnvelopesBuffered(t *testing.T) {
	t.Parallel()
	url, client, _ := serve(t, func(_ http.ResponseWriter, request *http.Request) {
		stream, _ := wire.FromContext(request.Context())
		envelopes, _ := stream.Envelopes()
		for _, want := range []bool{true, false} {
			if _, ok := envelopes.Receive(); !ok {
				t.Error("no message")
			}
			if got := envelopes.Buffered(); got != want {
				t.Errorf("Buffered is %t, want %t", got, want)
			}
		}
	})
	both := wire.AppendEnvelope(wire.AppendEnvelope(nil, []byte("first")), []byte("second"))
	post(t, client, url, "application/grpc", bytes.NewReader(both))
}
