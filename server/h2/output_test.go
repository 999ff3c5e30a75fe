package h2_test

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"example.com/routeguide/server/h2"
)

// A PING is answered even if a handler has written, and does not flush.
func TestPingAckDoesNotWaitForFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		write := make(chan struct{})
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			_ = http.NewResponseController(response).Flush()
			<-write
			_, _ = io.WriteString(response, "not flushed")
			<-request.Context().Done()
		})})
		c := newClient(t, pipes.Dial(t))
		c.post(1, "/")
		synctest.Wait()
		close(write)
		synctest.Wait()
		c.sync()
	})
}

// The answer to a PING waits for other output to join: for 5 ms, and for 40 ms after another one within a second, which joins from 20 ms
// on, and much output at once. Without a stream, there is nothing to wait for.
func TestPingAckWaitsForOutput(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		flush := make(chan int)
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
			for length := range flush {
				_, _ = response.Write(make([]byte, length))
				_ = http.NewResponseController(response).Flush()
			}
		})})
		defer close(flush)
		c := newClient(t, pipes.Dial(t))
		ping := func(want time.Duration, meanwhile func()) {
			t.Helper()
			synctest.Wait() // Nothing is being written.
			begin := time.Now()
			c.must(c.WritePing(false, [8]byte{}))
			synctest.Wait()
			go meanwhile()
			c.await(http2.FramePing, 0)
			if passed := time.Since(begin); passed != want {
				t.Errorf("the answer comes after %v, want %v", passed, want)
			}
		}
		idle := func() {}
		writeAfter := func(delay time.Duration, length int) func() {
			return func() {
				time.Sleep(delay)
				flush <- length
			}
		}
		ping(0, idle)
		c.get(1, "/")
		flush <- 1
		c.await(http2.FrameHeaders, 1)
		time.Sleep(time.Second)
		ping(2*time.Millisecond, writeAfter(2*time.Millisecond, 1))
		time.Sleep(time.Second)
		ping(5*time.Millisecond, idle)
		ping(40*time.Millisecond, idle)
		ping(40*time.Millisecond, writeAfter(19*time.Millisecond, 1))
		ping(25*time.Millisecond, writeAfter(25*time.Millisecond, 1))
		ping(40*time.Millisecond, idle) // It waits as long, although the timer of the last one runs still.
		ping(3*time.Millisecond, writeAfter(3*time.Millisecond, 16<<10))
		ping(40*time.Millisecond, writeAfter(3*time.Millisecond, 1))
		time.Sleep(time.Second)
		ping(5*time.Millisecond, idle)
	})
}

// Many answers do not wait.
func TestPingAcksAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			<-request.Context().Done()
		})})
		c := newClient(t, pipes.Dial(t))
		c.post(1, "/")
		synctest.Wait()
		begin := time.Now()
		for range 256 {
			c.must(c.WritePing(false, [8]byte{}))
		}
		for range 256 {
			c.await(http2.FramePing, 0)
		}
		if passed := time.Since(begin); passed > 0 {
			t.Errorf("the answers come after %v", passed)
		}
	})
}
