package h2_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"example.com/routeguide/internal/pipetest"
	"example.com/routeguide/server/h2"
)

// shutDown begins Shutdown, and returns its result.
func shutDown(server *h2.Server) <-chan error {
	result := make(chan error, 1)
	go func() { result <- server.Shutdown(context.Background()) }()
	return result
}

// goAwayPing waits for the first GOAWAY, which names no stream, and returns the PING after it.
func (c *client) goAwayPing() [8]byte {
	c.t.Helper()
	if first := c.await(http2.FrameGoAway, 0); first.last != 1<<31-1 || http2.ErrCode(first.number) != http2.ErrCodeNo {
		c.t.Errorf("the first GOAWAY names stream %d and %v", first.last, http2.ErrCode(first.number))
	}
	return [8]byte(c.await(http2.FramePing, 0).payload)
}

// Shutdown sends GOAWAY in two phases: streams that are opened before the client knows of it are served, later ones are ignored with
// all their frames, and the connection ends after the last stream.
func TestShutdownInTwoPhases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		server := &h2.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			<-release
			_, _ = io.Copy(response, request.Body)
		})}
		pipes := servePipes(t, server)
		c := newClient(t, pipes.Dial(t))
		c.post(1, "/")
		synctest.Wait()
		result := shutDown(server)
		ping := c.goAwayPing()
		c.get(3, "/") // It was on the way.
		c.must(c.WritePing(true, ping))
		if last := c.await(http2.FrameGoAway, 0); last.last != 3 || http2.ErrCode(last.number) != http2.ErrCodeNo {
			t.Errorf("the last GOAWAY names stream %d and %v", last.last, http2.ErrCode(last.number))
		}
		c.post(5, "/", "x-field", "in the table")
		c.data(5, false, []byte("data"))
		c.must(c.WriteWindowUpdate(5, 100))
		c.headers(5, true, "x-trailer", "1")
		c.post(7, "/")
		c.must(c.WriteRSTStream(7, http2.ErrCodeCancel))
		c.data(1, true, []byte("body"))
		close(release)
		if a := c.awaitAnswer(1); a.body != "body" {
			t.Errorf("the response of stream 1 is %+v", a)
		}
		if a := c.awaitAnswer(3); a.status != "200" {
			t.Errorf("the response of stream 3 is %+v", a)
		}
		c.awaitEnd()
		if len(c.events) > 0 {
			for _, e := range c.events {
				if e.StreamID > 3 || e.Type == http2.FrameGoAway {
					t.Errorf("the server sends %v", e)
				}
			}
		}
		if err := <-result; err != nil {
			t.Errorf("Shutdown returns %v", err)
		}
	})
}

// After an error that follows the last GOAWAY, the stream that GOAWAY names does not increase.
func TestGoAwayDoesNotIncrease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &h2.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() })}
		pipes := servePipes(t, server)
		c := newClient(t, pipes.Dial(t))
		c.post(1, "/")
		result := shutDown(server)
		c.must(c.WritePing(true, c.goAwayPing()))
		c.await(http2.FrameGoAway, 0)
		c.post(3, "/")
		c.must(c.WriteWindowUpdate(0, 0))
		if e := c.await(http2.FrameGoAway, 0); e.last != 1 || http2.ErrCode(e.number) != http2.ErrCodeProtocol {
			t.Errorf("the connection fails with %v after stream %d", http2.ErrCode(e.number), e.last)
		}
		c.awaitEnd()
		<-result
	})
}

// A client that does not answer the PING between the two GOAWAYs gets the second one anyway.
func TestShutdownWithoutPingAck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &h2.Server{Handler: http.NotFoundHandler()}
		pipes := servePipes(t, server)
		c := newClient(t, pipes.Dial(t))
		c.sync()
		result := shutDown(server)
		c.goAwayPing()
		c.await(http2.FrameGoAway, 0)
		c.awaitEnd()
		if err := <-result; err != nil {
			t.Errorf("Shutdown returns %v", err)
		}
	})
}

// Shutdown waits for streams, and for handlers whose streams were reset, until its context ends. Close ends them at once.
func TestShutdownDeadlineAndClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		causes := make(chan error, 1)
		release := make(chan struct{})
		server := &h2.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			<-request.Context().Done()
			causes <- context.Cause(request.Context())
			<-release
		})}
		pipes := pipetest.Listen()
		served := make(chan error, 1)
		go func() { served <- server.Serve(pipes) }()
		c := newClient(t, pipes.Dial(t))
		c.post(1, "/")
		c.sync()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown returns %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve returns %v", err)
		}
		if err := server.Serve(pipetest.Listen()); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve after Shutdown returns %v", err)
		}
		if err := server.Close(); err != nil {
			t.Errorf("Close returns %v", err)
		}
		if err := <-causes; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("the cause of the context is %v", err)
		}
		c.awaitEnd()
		result := shutDown(server)
		synctest.Wait()
		select {
		case err := <-result:
			t.Errorf("Shutdown returns %v while a handler runs", err)
		default:
		}
		close(release)
		if err := <-result; err != nil {
			t.Errorf("Shutdown returns %v", err)
		}
	})
}

// Shutdown ends connections that have asked for nothing yet: during the preface, and during the TLS handshake.
func TestShutdownDuringPreface(t *testing.T) {
	t.Parallel()
	for _, sent := range []string{"", http2.ClientPreface[:10], "GET / HT"} {
		synctest.Test(t, func(t *testing.T) {
			server := &h2.Server{Handler: http.NotFoundHandler()}
			pipes := servePipes(t, server)
			conn := pipes.Dial(t)
			if _, err := io.WriteString(conn, sent); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			begin := time.Now()
			result := shutDown(server)
			if answer, err := io.ReadAll(conn); err != nil || len(answer) > 0 {
				t.Errorf("after %q, the client gets %q, %v", sent, answer, err)
			}
			if err := <-result; err != nil {
				t.Errorf("Shutdown returns %v", err)
			}
			if passed := time.Since(begin); sent != "GET / HT" && passed > 0 {
				t.Errorf("after %q, Shutdown takes %v", sent, passed)
			}
		})
	}
}

// A response with the field Connection: close is the beginning of a graceful shutdown of its connection.
func TestConnectionClose(t *testing.T) {
	t.Parallel()
	c := dial(t, handle(t, func(response http.ResponseWriter, _ *http.Request) { response.Header().Set("Connection", "close") }))
	c.get(1, "/")
	c.awaitAnswer(1)
	c.must(c.WritePing(true, c.goAwayPing()))
	c.awaitFailure(http2.ErrCodeNo)
}

// Shutdown waits for requests of HTTP/1.1, and closes idle connections.
func TestShutdownOfHTTP1(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	server := &h2.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-release
		_, _ = io.WriteString(response, "answer")
	})}
	conn, err := net.Dial("tcp", serve(t, server))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returns %v while a request is served", err)
	}
	close(release)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(response.Body); string(body) != "answer" || err != nil {
		t.Errorf("the response is %q, %v", body, err)
	}
	if err := <-shutDown(server); err != nil {
		t.Errorf("Shutdown returns %v", err)
	}
}

// Close and Shutdown may come at any time: nothing hangs, leaks or races.
func TestCloseDuringEverything(t *testing.T) {
	t.Parallel()
	for i := range 50 {
		server := &h2.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			_, _ = io.Copy(response, io.LimitReader(request.Body, 1000))
			_ = http.NewResponseController(response).Flush()
			for request.Context().Err() == nil {
				if _, err := response.Write(make([]byte, 10_000)); err != nil {
					return
				}
			}
		})}
		listener := listen(t)
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		address := listener.Addr().String()
		var clients sync.WaitGroup
		var transports []*http.Transport
		for _, protocols := range clearProtocols() {
			transport := &http.Transport{Protocols: protocols}
			transports = append(transports, transport)
			for range 4 {
				clients.Go(func() {
					for {
						response, err := (&http.Client{Transport: transport}).Post("http://"+address, "", io.LimitReader(zeros{}, 2000))
						if err != nil {
							return
						}
						_, err = io.CopyN(io.Discard, response.Body, 100_000)
						_ = response.Body.Close()
						if err != nil {
							return
						}
					}
				})
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond/4)
		<-ctx.Done()
		if i%2 == 0 {
			_ = server.Shutdown(ctx)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		clients.Wait()
		for _, transport := range transports {
			transport.CloseIdleConnections()
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve returns %v", err)
		}
		if err := server.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown after Close returns %v", err)
		}
		if unread := server.Unread(); unread != 0 {
			t.Errorf("%d bytes count as unread after the last stream", unread)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
