package wire_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/routeguide/server/wire"
)

// deadlines is a response that notes which of its deadlines were set.
type deadlines struct {
	*httptest.ResponseRecorder

	set      []string
	flushErr error
}

func (d *deadlines) SetReadDeadline(time.Time) error {
	d.set = append(d.set, "read")
	return nil
}

func (d *deadlines) SetWriteDeadline(time.Time) error {
	d.set = append(d.set, "write")
	return nil
}

func (d *deadlines) FlushError() error { return d.flushErr }

func newRequest(major int) *http.Request {
	request := httptest.NewRequest(http.MethodPost, "/", http.NoBody)
	request.ProtoMajor = major
	return request
}

var errCause = errors.New("the cause")

// Once the HTTP handler has returned, net/http has taken its things back, and with HTTP/1.1 the connection is for the
// next request.
func TestStreamIsLeftAloneAfterTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var stream *wire.Stream
		response := &deadlines{ResponseRecorder: httptest.NewRecorder()}
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
			t.Errorf("deadlines were set after the handler had returned: %v", response.set)
		}
	})
}

func TestStreamResetEndsReadingAndWriting(t *testing.T) {
	t.Parallel()
	response := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		stream, _ := wire.FromContext(request.Context())
		if err := stream.Reset(); err != nil {
			t.Error(err)
		}
	})).ServeHTTP(response, newRequest(2))
	if want := []string{"read", "write"}; !slices.Equal(response.set, want) {
		t.Errorf("a reset sets the deadlines %v, want %v", response.set, want)
	}
}

// AtEnd says whether what the handler has written was written to the connection.
func TestStreamAtEnd(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, want := range []error{nil, broken} {
		response := &deadlines{ResponseRecorder: httptest.NewRecorder(), flushErr: want}
		var reported []error
		wire.NewHandler(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			stream, _ := wire.FromContext(request.Context())
			stream.AtEnd(func(gone error) { reported = append(reported, gone) })
		})).ServeHTTP(response, newRequest(2))
		if len(reported) != 1 || !errors.Is(reported[0], want) || want != nil && !errors.Is(reported[0], wire.ErrGone) {
			t.Errorf("got the reports %v, want %v", reported, want)
		}
	}
}
