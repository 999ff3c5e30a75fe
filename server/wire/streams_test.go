package wire_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"example.com/routeguide/server/wire"
)

// slowResponse is a response of which each 32 KiB take some time, or until a write deadline has passed.
type slowResponse struct {
	*httptest.ResponseRecorder

	each  time.Duration
	reset chan struct{}
}

func newSlowResponse(each time.Duration) *slowResponse {
	return &slowResponse{httptest.NewRecorder(), each, make(chan struct{}, 1)}
}

func (r *slowResponse) SetReadDeadline(time.Time) error { return nil }

func (r *slowResponse) SetWriteDeadline(deadline time.Time) error {
	if deadline.Before(time.Now()) {
		r.reset <- struct{}{}
	}
	return nil
}

func (r *slowResponse) Write(p []byte) (int, error) {
	select {
	case <-time.After(r.each * time.Duration(1+(len(p)-1)/(32<<10))):
		return len(p), nil
	case <-r.reset:
		return 0, os.ErrDeadlineExceeded
	}
}

const stallTimeout = time.Minute

// serveSlow has a handler write a response of which each chunk takes some time.
func serveSlow(each time.Duration, handle http.HandlerFunc) (stalled int64) {
	streams := wire.NewStreams(stallTimeout)
	defer streams.Close()
	streams.Handler(handle).ServeHTTP(newSlowResponse(each), newRequest(2))
	return streams.Stalled()
}

// A slow client that still reads 32 KiB within each stall timeout is not a slow consumer, even if the response as a whole takes much
// longer. An idle stream is none either.
func TestStreamsSpareSlowSteadyReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stalled := serveSlow(stallTimeout-time.Second, func(response http.ResponseWriter, _ *http.Request) {
			if n, err := response.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil {
				t.Errorf("wrote %d bytes, %v", n, err)
			}
			time.Sleep(10 * stallTimeout)
			if _, err := response.Write(make([]byte, 1)); err != nil {
				t.Error(err)
			}
		})
		if stalled != 0 {
			t.Errorf("%d streams have stalled, want none", stalled)
		}
	})
}

func TestStreamsResetSlowConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		stalled := serveSlow(10*stallTimeout, func(response http.ResponseWriter, _ *http.Request) {
			if _, err := response.Write(make([]byte, 1)); !errors.Is(err, wire.ErrStalled) {
				t.Errorf("got %v, want ErrStalled", err)
			}
			if took := time.Since(start); took < stallTimeout || took > stallTimeout+stallTimeout/2 {
				t.Errorf("the stream was reset after %v, want a minute", took)
			}
		})
		if stalled != 1 {
			t.Errorf("%d streams have stalled, want 1", stalled)
		}
	})
}
