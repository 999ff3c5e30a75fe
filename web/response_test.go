package web

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"example.com/routeguide/internal/pipetest"
)

func TestAdmitBoundsResponses(t *testing.T) {
	t.Parallel()
	admitted, released := 0, 0
	page := newPage(t, Options{Admit: func(*http.Request) (func(), bool) {
		if admitted == 2 {
			return nil, false
		}
		admitted++
		return func() { released++ }, true
	}})
	for _, test := range []struct {
		target string
		status int
	}{{"/", http.StatusOK}, {"/assets/none", http.StatusNotFound}, {"/", http.StatusServiceUnavailable}} {
		response := get(t, page, http.MethodGet, test.target)
		if response.StatusCode != test.status {
			t.Errorf("%s: got %s, want %d", test.target, response.Status, test.status)
		}
		if content := body(t, response); test.status == http.StatusServiceUnavailable && (response.Header.Get("Retry-After") == "" || len(content) > 0) {
			t.Errorf("the refusal is %v, %q", response.Header, content)
		}
	}
	if admitted != 2 || released != 2 {
		t.Errorf("%d responses were admitted, and %d released, want 2", admitted, released)
	}
}

// requestLarge sends a GET for a file of 1 MB to a server with a stall timeout of a minute, and returns the connection. ended is closed once the
// handler has returned.
func requestLarge(t *testing.T) (conn net.Conn, ended <-chan struct{}) {
	t.Helper()
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	page, err := newHandler(fstest.MapFS{"assets/large-00000000.png": {Data: content}}, Options{StallTimeout: time.Minute}, refuse(t))
	if err != nil {
		t.Fatal(err)
	}
	returned := make(chan struct{})
	listener := pipetest.Listen()
	server := &http.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		defer close(returned)
		page.ServeHTTP(response, request)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	client := listener.Dial(t)
	t.Cleanup(func() {
		if err := errors.Join(client.Close(), server.Shutdown(context.Background())); err != nil {
			t.Error(err)
		}
		<-served
	})
	if _, err := io.WriteString(client, "GET /assets/large-00000000.png HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return client, returned
}

func TestStallTimeoutCutsSlowConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, ended := requestLarge(t)
		start := time.Now()
		if _, err := io.CopyN(io.Discard, conn, 100<<10); err != nil {
			t.Fatal(err)
		}
		if <-ended; time.Since(start) != time.Minute {
			t.Errorf("the handler held the connection of a client that reads nothing for %v", time.Since(start))
		}
	})
}

func TestStallTimeoutSparesSteadyReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, ended := requestLarge(t)
		start, read := time.Now(), int64(0)
		for read < 1<<20 {
			n, err := io.CopyN(io.Discard, conn, chunkBytes)
			if read += n; err != nil {
				t.Fatalf("cut after %d bytes and %v: %v", read, time.Since(start), err)
			}
			time.Sleep(40 * time.Second) // Of the bubble's clock.
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		if <-ended; time.Since(start) < 20*time.Minute {
			t.Errorf("the response took %v", time.Since(start))
		}
	})
}
