package wire_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/routeguide/server/wire"
)

// deadlineRecorder is a response that records which of its deadlines were set.
type deadlineRecorder struct {
	*httptest.ResponseRecorder

	set      []string
	flushErr error
}

func (r *deadlineRecorder) SetReadDeadline(time.Time) error {
	r.set = append(r.set, "read")
	return nil
}

func (r *deadlineRecorder) SetWriteDeadline(time.Time) error {
	r.set = append(r.set, "write")
	return nil
}

func (r *deadlineRecorder) FlushError() error { return r.flushErr }

func newRequest(major int) *http.Request {
	request := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
	request.ProtoMajor = major
	return request
}

var errCause = errors.New("the cause")

// After the HTTP handler has returned, a Stream must not touch the response: net/http owns it again, and an HTTP/1.1
// connection serves the next request.
func TestStreamSetsNoDeadlineAfterHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var stream *wire.Stream
		response := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
		handler := wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			stream, _ = wire.FromContext(request.Context())
			if err := errors.Join(stream.SetRequestDeadline(time.Now().Add(time.Second), errCause), stream.StopReadingAt(time.Now().Add(time.Minute), errCause)); err != nil {
				t.Error(err)
			}
		}))
		handler.ServeHTTP(response, newRequest(2))
		time.Sleep(time.Hour)
		if err := errors.Join(stream.StopReadingAt(time.Now().Add(time.Second), errCause), stream.StopReading(errCause), stream.Reset()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if len(response.set) > 0 {
			t.Errorf("deadlines set after the handler had returned: %v", response.set)
		}
	})
}

func TestStreamResetSetsReadAndWriteDeadline(t *testing.T) {
	t.Parallel()
	response := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
	wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		stream, _ := wire.FromContext(request.Context())
		if err := stream.Reset(); err != nil {
			t.Error(err)
		}
	})).ServeHTTP(response, newRequest(2))
	if want := []string{"read", "write"}; !slices.Equal(response.set, want) {
		t.Errorf("Reset sets the deadlines %v, want %v", response.set, want)
	}
}

// AtEnd reports whether the response was written to the connection.
func TestStreamAtEndReportsFailedFlush(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, want := range []error{nil, broken} {
		response := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder(), flushErr: want}
		var reported []error
		wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			stream, _ := wire.FromContext(request.Context())
			stream.AtEnd(func(gone error) { reported = append(reported, gone) })
		})).ServeHTTP(response, newRequest(2))
		if len(reported) != 1 || !errors.Is(reported[0], want) || want != nil && !errors.Is(reported[0], wire.ErrGone) {
			t.Errorf("got reports %v, want %v", reported, want)
		}
	}
}

// After the end of the request there is nothing to stop. On HTTP/1.1 net/http reads on by then, to see whether the client
// goes, and an expired deadline would cancel the contexts of all later requests on the connection.
func TestStreamSetsNoReadDeadlineAfterRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		response := &deadlineRecorder{ResponseRecorder: httptest.NewRecorder()}
		wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			stream, _ := wire.FromContext(request.Context())
			if err := errors.Join(stream.SetRequestDeadline(time.Now().Add(time.Second), errCause), stream.StopReadingAt(time.Now().Add(time.Minute), errCause)); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, request.Body); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
			if err := stream.StopReading(errCause); err != nil {
				t.Error(err)
			}
			if len(response.set) > 0 {
				t.Errorf("deadlines set after the end of the request: %v", response.set)
			}
		})).ServeHTTP(response, newRequest(2))
	})
}

// After StopReading, reads fail with its cause, and writes succeed.
func TestStreamStopReadingLeavesWritingOpen(t *testing.T) {
	t.Parallel()
	url, client, _ := serve(t, func(_ http.ResponseWriter, request *http.Request) {
		envelopes := envelopes(t, request.Context())
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
		if err := errors.Join(envelopes.Write([]byte("bye")), envelopes.Flush()); err != nil {
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
