package h2_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"example.com/routeguide/server/h2"
)

// readAll is a handler that reports how reading the body ended.
func readAll(results chan<- error) http.HandlerFunc {
	return func(_ http.ResponseWriter, request *http.Request) {
		_, err := io.ReadAll(request.Body)
		results <- err
	}
}

// A body that ends without END_STREAM ends with an error that is not io.EOF, or a part of it would pass for the whole.
func TestBodyThatIsCutOffIsNoEOF(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(c *client){
		"disconnect":       func(c *client) { c.close() },
		"reset":            func(c *client) { c.must(c.WriteRSTStream(1, http2.ErrCodeCancel)) },
		"connection error": func(c *client) { c.must(c.WriteWindowUpdate(0, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := make(chan error, 1)
			c := dial(t, handle(t, func(response http.ResponseWriter, request *http.Request) {
				_, err := io.ReadAll(request.Body) // It returns no error for EOF.
				if err == nil || errors.Is(err, io.EOF) {
					t.Errorf("the body ends with %v", err)
				}
				<-request.Context().Done()
				results <- context.Cause(request.Context())
			}))
			c.post(1, "/")
			c.data(1, false, []byte("a part"))
			c.sync()
			cut(c)
			err := <-results
			if err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the cause of the context is %v", err)
			}
			var reset *h2.StreamError
			if isReset := errors.As(err, &reset); isReset != (name == "reset") || isReset && (!reset.ByClient || reset.Code != http2.ErrCodeCancel || !errors.Is(err, context.Canceled)) {
				t.Errorf("the cause of the context is %v", err)
			}
		})
	}
}

// A body must have the length that Content-Length declares.
func TestRequestContentLength(t *testing.T) {
	t.Parallel()
	results := make(chan error, 1)
	c := dial(t, handle(t, readAll(results)))
	for i, test := range []struct {
		data string
		ok   bool
	}{{"abcde", true}, {"abcd", false}, {"abcdef", false}, {"", false}} {
		stream := uint32(1 + 2*i)
		c.post(stream, "/", "content-length", "5")
		c.data(stream, true, []byte(test.data))
		err := <-results
		if test.ok {
			if c.awaitAnswer(stream); err != nil {
				t.Errorf("the handler gets %v", err)
			}
			continue
		}
		c.awaitReset(stream, http2.ErrCodeProtocol)
		if reset, ok := errors.AsType[*h2.StreamError](err); !ok || reset.Code != http2.ErrCodeProtocol || reset.ByClient {
			t.Errorf("with %q, the handler gets %v", test.data, err)
		}
	}
	c.post(9, "/", "content-length", "5")
	c.data(9, false, []byte("abcd"))
	c.headers(9, true, "x-trailer", "1")
	c.awaitReset(9, http2.ErrCodeProtocol)
	<-results
}

// 100 Continue is sent at the first read, unless the body, or a response, comes first.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	c := dial(t, handle(t, func(response http.ResponseWriter, request *http.Request) {
		if request.Header.Get("Expect") != "" {
			t.Error("the handler sees the field Expect")
		}
		switch request.URL.Path {
		case "/refuse":
			response.WriteHeader(http.StatusForbidden)
			return
		case "/answer":
			_ = http.NewResponseController(response).Flush()
		case "/wait":
			<-proceed
		}
		_, _ = io.Copy(response, request.Body)
	}))
	for i, test := range []struct {
		path   string
		before bool // the body comes before it is asked for
		status string
		want   int
	}{{"/", false, "200", 1}, {"/refuse", false, "403", 0}, {"/wait", true, "200", 0}} {
		stream := uint32(1 + 2*i)
		c.post(stream, test.path, "expect", "100-continue")
		var a answer
		if test.want > 0 {
			a.add(c.await(http2.FrameHeaders, stream))
		}
		if test.path != "/refuse" {
			c.data(stream, true, []byte("body"))
		}
		if test.before {
			c.sync()
			close(proceed)
		}
		rest := c.awaitAnswer(stream)
		if informational := append(a.informational, rest.informational...); len(informational) != test.want || rest.status != test.status {
			t.Errorf("%s: the answers are %v and %s", test.path, informational, rest.status)
		}
	}
	c.post(7, "/answer", "expect", "100-continue")
	if e := c.await(http2.FrameHeaders, 7); e.fields[0].Value != "200" {
		t.Errorf("the first answer is %v", e.fields)
	}
	c.data(7, true, nil)
	if a := c.awaitAnswer(7); a.trailer != nil || a.informational != nil || a.status != "" {
		t.Errorf("after the response come %+v", a)
	}
}

// A read deadline ends reads with os.ErrDeadlineExceeded after what has arrived, and can be lifted. Writes go on.
func TestSetReadDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			controller := http.NewResponseController(response)
			begin := time.Now()
			buffer := make([]byte, 10)
			check := func(step string, deadline time.Time, want string, wantErr error) {
				if err := controller.SetReadDeadline(deadline); err != nil {
					t.Error(err)
				}
				if n, err := request.Body.Read(buffer); string(buffer[:n]) != want || !errors.Is(err, wantErr) {
					t.Errorf("%s: Read returns %q, %v", step, buffer[:n], err)
				}
			}
			check("data before", begin.Add(time.Second), "early", nil)
			check("deadline", begin.Add(time.Second), "", os.ErrDeadlineExceeded)
			if passed := time.Since(begin); passed != time.Second {
				t.Errorf("the deadline of a second passes after %v", passed)
			}
			check("past", begin, "", os.ErrDeadlineExceeded)
			_, _ = io.WriteString(response, "go on")
			_ = controller.Flush()
			check("lifted", time.Time{}, "late", nil)
			check("moved on", time.Now().Add(time.Minute), "", io.EOF)
		})})
		c := newClient(t, pipes.Dial(t))
		c.post(1, "/")
		c.data(1, false, []byte("early"))
		c.await(http2.FrameData, 1)
		synctest.Wait()
		c.data(1, false, []byte("late"))
		synctest.Wait()
		c.data(1, true, nil)
		if a := c.awaitAnswer(1); a.reset {
			t.Errorf("the stream is reset with %v", a.code)
		}
	})
}

// A write deadline resets the stream, also while a Write is blocked, and may be moved and lifted before.
func TestSetWriteDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			controller := http.NewResponseController(response)
			begin := time.Now()
			deadline := map[string]time.Time{"/blocked": begin.Add(time.Second), "/past": begin, "/lifted": begin.Add(time.Second)}[request.URL.Path]
			if err := controller.SetWriteDeadline(deadline); err != nil {
				t.Error(err)
			}
			if request.URL.Path == "/lifted" {
				_ = controller.SetWriteDeadline(time.Time{})
				time.Sleep(time.Hour)
				return
			}
			_, err := response.Write(make([]byte, 100_000)) // The window is smaller.
			if reset, ok := errors.AsType[*h2.StreamError](err); !ok || reset.Code != http2.ErrCodeInternal || reset.ByClient {
				t.Errorf("%s: Write returns %v", request.URL.Path, err)
			}
			if passed := begin.Sub(deadline) + time.Since(begin); passed != 0 {
				t.Errorf("%s: Write returns %v after the deadline", request.URL.Path, passed)
			}
			if request.Context().Err() == nil {
				t.Error("the context of a reset stream goes on")
			}
		})})
		c := newClient(t, pipes.Dial(t))
		c.get(1, "/blocked")
		c.get(3, "/past")
		c.awaitReset(3, http2.ErrCodeInternal)
		c.awaitReset(1, http2.ErrCodeInternal)
		_ = c.SetDeadline(time.Time{})
		c.get(5, "/lifted")
		if a := c.awaitAnswer(5); a.status != "200" {
			t.Errorf("after the deadline was lifted, the response is %+v", a)
		}
	})
}

// Close of the body drops what arrives. The response goes on.
func TestBodyClose(t *testing.T) {
	t.Parallel()
	server := &h2.Server{}
	closed, finish := make(chan struct{}), make(chan struct{})
	server.Handler = http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		_ = request.Body.Close()
		if _, err := request.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("Read after Close returns %v", err)
		}
		close(closed)
		<-finish
		_, _ = io.WriteString(response, "answer")
	})
	c := dial(t, serve(t, server))
	c.post(1, "/")
	c.data(1, false, []byte("before"))
	<-closed
	c.data(1, false, make([]byte, 10_000))
	c.sync()
	if unread := server.Unread(); unread != 0 {
		t.Errorf("%d bytes are kept after Close", unread)
	}
	close(finish)
	if e := c.await(http2.FrameData, 1); string(e.payload) != "answer" {
		t.Errorf("the response is %q", e.payload)
	}
	c.awaitReset(1, http2.ErrCodeNo) // The client need not send the rest.
}

// A handler that ends without reading the request tells the client to stop, and what was under way is dropped.
func TestResponseBeforeTheEndOfTheRequest(t *testing.T) {
	t.Parallel()
	c := dial(t, handle(t, func(http.ResponseWriter, *http.Request) {}))
	c.post(1, "/", "trailer", "x-sum")
	if a := c.awaitAnswer(1); a.status != "200" || a.reset {
		t.Errorf("the response is %+v", a)
	}
	c.awaitReset(1, http2.ErrCodeNo)
	c.data(1, false, []byte("on the way"))
	c.headers(1, true, "x-sum", "1")
	c.must(c.WriteWindowUpdate(1, 1), c.WriteRSTStream(1, http2.ErrCodeCancel))
	c.get(3, "/")
	c.awaitAnswer(3)
	if resets := c.arrived(http2.FrameRSTStream); len(resets) > 0 {
		t.Errorf("frames of a stream that was reset are answered with %v", resets)
	}
}

// Frames of a refused stream that are on the way are dropped: its DATA, and its trailers.
func TestRefusedStream(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	c := dial(t, serve(t, &h2.Server{MaxStreams: 1, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release })}))
	c.get(1, "/")
	c.post(3, "/")
	c.data(3, false, []byte("on the way"))
	c.headers(3, true, "x-sum", "1")
	c.awaitReset(3, http2.ErrCodeRefusedStream)
	c.sync()
	if resets := c.arrived(http2.FrameRSTStream); len(resets) > 0 {
		t.Errorf("frames of a refused stream are answered with %v", resets)
	}
	close(release)
	c.awaitAnswer(1)
	c.get(5, "/")
	c.awaitAnswer(5)
}

// The end of a handler ends its stream, however it ends, and the next streams are served.
func TestHandlerEnds(t *testing.T) {
	t.Parallel()
	c := dial(t, serve(t, &h2.Server{MaxStreams: 2, Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if strings.HasSuffix(request.URL.Path, "-later") {
			_ = http.NewResponseController(response).Flush()
		}
		switch {
		case strings.HasPrefix(request.URL.Path, "/panic"):
			panic("on purpose")
		case strings.HasPrefix(request.URL.Path, "/abort"):
			panic(http.ErrAbortHandler)
		case strings.HasPrefix(request.URL.Path, "/goexit"):
			runtime.Goexit()
		}
	})}))
	stream := uint32(1)
	for range 3 {
		for _, path := range []string{"/panic", "/panic-later", "/abort", "/abort-later", "/goexit", "/goexit-later"} {
			c.get(stream, path)
			if a := c.awaitAnswer(stream); !a.reset || a.code != http2.ErrCodeInternal || (a.status != "") != strings.HasSuffix(path, "-later") {
				t.Errorf("%s: the response is %+v", path, a)
			}
			stream += 2
		}
	}
	c.get(stream, "/")
	if a := c.awaitAnswer(stream); a.status != "200" {
		t.Errorf("the next response is %+v", a)
	}
}

// A panic is logged with its stack, and http.ErrAbortHandler is not.
func TestPanicIsLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer // The handler has ended when it is read.
	c := dial(t, serve(t, &h2.Server{Logger: newLogger(&log), Handler: http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
		panic("on purpose")
	})}))
	c.get(1, "/abort")
	c.awaitAnswer(1)
	if log.Len() > 0 {
		t.Errorf("http.ErrAbortHandler is logged: %s", &log)
	}
	c.get(3, "/panic")
	c.awaitAnswer(3)
	if text := log.String(); !strings.Contains(text, "on purpose") || !strings.Contains(text, "TestPanicIsLogged") || !strings.Contains(text, "path=/panic") {
		t.Errorf("the log of a panic is %q", text)
	}
}

// Goroutines of a handler may read on when it has returned, as those of httputil.ReverseProxy do when the answer comes early.
func TestReadingAfterTheHandler(t *testing.T) {
	t.Parallel()
	results := make(chan error)
	c := dial(t, handle(t, func(_ http.ResponseWriter, request *http.Request) {
		begun := make(chan struct{})
		go func() {
			_, err := request.Body.Read(make([]byte, 1))
			close(begun)
			for err == nil {
				_, err = request.Body.Read(make([]byte, 1))
			}
			results <- err
		}()
		<-begun
	}))
	for i := range uint32(100) {
		c.post(1+2*i, "/")
		c.data(1+2*i, false, make([]byte, 10_000))
		if err := <-results; errors.Is(err, io.EOF) {
			t.Error("a body that was cut off looks complete")
		}
	}
}
