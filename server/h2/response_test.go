package h2_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"example.com/routeguide/server/h2"
)

// responses are handlers, and what their responses are.
var responses = []struct {
	name    string
	method  string // GET if it is empty
	handler http.HandlerFunc
	status  string
	header  map[string]string // "" means that there is no such field
	body    string
	trailer map[string]string
	reset   bool // with INTERNAL_ERROR
}{
	{name: "nothing", handler: func(http.ResponseWriter, *http.Request) {}, status: "200", header: map[string]string{"content-length": "0", "content-type": ""}},
	{
		name:    "short",
		handler: func(response http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(response, "<html>") },
		status:  "200", header: map[string]string{"content-length": "6", "content-type": "text/html; charset=utf-8"}, body: "<html>",
	},
	{
		name: "flushed",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(response, "a")
			response.(http.Flusher).Flush()
			_, _ = io.WriteString(response, "b")
		},
		status: "200", header: map[string]string{"content-length": "", "content-type": "text/plain; charset=utf-8"}, body: "ab",
	},
	{
		name: "long",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			_, _ = response.Write(bytes.Repeat([]byte("x"), 50_000))
		},
		status: "200", header: map[string]string{"content-length": "", "content-type": "text/plain; charset=utf-8"}, body: strings.Repeat("x", 50_000),
	},
	{
		name: "content type that is to be left out",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header()["Content-Type"] = nil
			response.Header()["Date"] = nil
			_, _ = io.WriteString(response, "a")
		},
		status: "200", header: map[string]string{"content-type": "", "date": ""}, body: "a",
	},
	{
		name: "header changed after WriteHeader",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("X-First", "1")
			response.WriteHeader(http.StatusTeapot)
			response.Header().Set("X-Second", "2")
			response.WriteHeader(http.StatusOK) // Superfluous.
		},
		status: "418", header: map[string]string{"x-first": "1", "x-second": ""},
	},
	{
		name: "fields that HTTP/2 forbids",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			for _, key := range []string{"Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Proxy-Connection", "bad name", ":status", "x\r\ny"} {
				response.Header()[key] = []string{"a"}
			}
			response.Header()["X-Bad"] = []string{"a\r\nb", "ok"}
		},
		status: "200",
		header: map[string]string{"connection": "", "keep-alive": "", "transfer-encoding": "", "upgrade": "", "proxy-connection": "", "bad name": "", "x\r\ny": "", "x-bad": "ok"},
	},
	{
		name: "HEAD", method: http.MethodHead,
		handler: func(response http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(response, "<html>") },
		status:  "200", header: map[string]string{"content-length": "6", "content-type": "text/html; charset=utf-8"},
	},
	{
		name: "HEAD, long", method: http.MethodHead,
		handler: func(response http.ResponseWriter, _ *http.Request) {
			for range 10 {
				if n, err := response.Write(make([]byte, 1000)); n != 1000 || err != nil {
					panic(err)
				}
			}
		},
		status: "200", header: map[string]string{"content-length": ""},
	},
	{
		name: "HEAD with a declared length", method: http.MethodHead,
		handler: func(response http.ResponseWriter, _ *http.Request) { response.Header().Set("Content-Length", "1000") },
		status:  "200", header: map[string]string{"content-length": "1000"},
	},
	{
		name: "204",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Content-Length", "5")
			response.WriteHeader(http.StatusNoContent)
			if _, err := io.WriteString(response, "a"); !errors.Is(err, http.ErrBodyNotAllowed) {
				panic(err)
			}
		},
		status: "204", header: map[string]string{"content-length": "", "content-type": ""},
	},
	{
		name: "304",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Content-Length", "5") // Of the response to a GET that is not conditional.
			response.WriteHeader(http.StatusNotModified)
		},
		status: "304", header: map[string]string{"content-length": "5", "content-type": ""},
	},
	{
		name: "declared length",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Content-Length", "3")
			_, _ = io.WriteString(response, "abc")
		},
		status: "200", header: map[string]string{"content-length": "3"}, body: "abc",
	},
	{
		name: "declared length that is none",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Content-Length", "three")
			_, _ = io.WriteString(response, "abc")
		},
		status: "200", header: map[string]string{"content-length": "3"}, body: "abc",
	},
	{
		name: "more than the declared length",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Content-Length", "3")
			for range 2 {
				if _, err := io.WriteString(response, "abcd"); !errors.Is(err, http.ErrContentLength) {
					panic(err)
				}
			}
			_, _ = io.WriteString(response, "abc")
		},
		status: "200", header: map[string]string{"content-length": "3"}, body: "abc",
	},
	{
		name: "less than the declared length",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Content-Length", "3")
			_, _ = io.WriteString(response, "ab")
			response.(http.Flusher).Flush()
		},
		status: "200", header: map[string]string{"content-length": "3"}, body: "ab", reset: true,
	},
	{
		name: "declared trailers",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Trailer", "X-Sum, X-Unset, Content-Length")
			_, _ = io.WriteString(response, "a")
			response.Header().Set("X-Sum", "1")
		},
		status: "200", header: map[string]string{"trailer": "X-Sum, X-Unset, Content-Length", "x-sum": "", "content-length": ""}, body: "a",
		trailer: map[string]string{"x-sum": "1", "x-unset": "", "content-length": ""},
	},
	{
		name: "trailers with the prefix",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set(http.TrailerPrefix+"X-Early", "0")
			response.(http.Flusher).Flush()
			response.Header().Set(http.TrailerPrefix+"x-Sum", "1")
			response.Header().Set(http.TrailerPrefix+"Content-Length", "5")
		},
		status: "200", header: map[string]string{"x-early": "", "trailer:x-early": ""},
		trailer: map[string]string{"x-early": "0", "x-sum": "1", "content-length": ""},
	},
	{
		name: "declared trailers without a value",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Trailer", "X-Unset")
			_, _ = io.WriteString(response, "a")
		},
		status: "200", body: "a",
	},
	{
		name: "HEAD with trailers", method: http.MethodHead,
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("Trailer", "X-Sum")
			_, _ = response.Write(make([]byte, 20_000))
			response.Header().Set("X-Sum", "1")
		},
		status: "200", header: map[string]string{"trailer": "X-Sum", "content-type": "application/octet-stream"},
	},
	{
		name: "type of a body that begins in parts",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(response, "<ht")
			_, _ = io.WriteString(response, "ml>"+strings.Repeat(" ", 5000))
		},
		status: "200", header: map[string]string{"content-type": "text/html; charset=utf-8"}, body: "<html>" + strings.Repeat(" ", 5000),
	},
	{
		name: "trailers after a long body",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			_, _ = response.Write(make([]byte, 20_000))
			response.Header().Set(http.TrailerPrefix+"X-Sum", "1")
		},
		status: "200", body: string(make([]byte, 20_000)), trailer: map[string]string{"x-sum": "1"},
	},
	{
		name: "large header",
		handler: func(response http.ResponseWriter, _ *http.Request) {
			response.Header().Set("X-Large", strings.Repeat("~", 100_000))
		},
		status: "200", header: map[string]string{"x-large": strings.Repeat("~", 100_000)},
	},
}

// TestResponses covers what handlers do with the response: lengths, types, trailers of both kinds, and statuses without a body.
func TestResponses(t *testing.T) {
	t.Parallel()
	for _, test := range responses {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, handle(t, test.handler))
			if test.method == "" {
				test.method = http.MethodGet
			}
			c.headers(1, true, request(test.method, "/")...)
			a := c.awaitAnswer(1)
			if a.status != test.status || a.body != test.body || a.reset != test.reset || a.reset && a.code != http2.ErrCodeInternal {
				t.Fatalf("the response is %+v", a)
			}
			if _, ok := test.header["date"]; !ok {
				if date, err := time.Parse(http.TimeFormat, a.header["date"][0]); err != nil || time.Since(date) > time.Hour {
					t.Errorf("the date is %v, %v", date, err)
				}
			}
			if (a.trailer != nil) != (test.trailer != nil) {
				t.Errorf("the trailers are %v", a.trailer)
			}
			for _, part := range []struct {
				got  map[string][]string
				want map[string]string
			}{{a.header, test.header}, {a.trailer, test.trailer}} {
				for name, want := range part.want {
					if got := part.got[name]; want == "" && got != nil || want != "" && !slices.Equal(got, []string{want}) {
						t.Errorf("%s is %.100q, want %.100q", name, got, want)
					}
				}
			}
			c.sync()
			for _, e := range c.arrived(http2.FrameData) {
				t.Errorf("DATA follows the end: %v", e)
			}
		})
	}
}

// Informational responses are sent at once, with the header of the time, and without a Content-Length.
func TestInformationalResponses(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	c := dial(t, handle(t, func(response http.ResponseWriter, _ *http.Request) {
		response.Header().Set("Link", "</style.css>")
		response.Header().Set("Content-Length", "2")
		response.WriteHeader(http.StatusEarlyHints)
		<-proceed
		response.Header().Del("Link")
		_, _ = io.WriteString(response, "ok")
	}))
	c.get(1, "/")
	early := c.await(http2.FrameHeaders, 1)
	if len(early.fields) != 2 || early.fields[0].Value != "103" || early.fields[1].Name != "link" || early.StreamEnded() {
		t.Errorf("the early hints are %v", early)
	}
	close(proceed)
	if a := c.awaitAnswer(1); a.status != "200" || a.body != "ok" || a.header["link"] != nil || a.header["content-length"][0] != "2" {
		t.Errorf("the response is %+v", a)
	}
}

// An empty Write sends no frame: clients count empty DATA as an attack.
func TestEmptyWriteSendsNothing(t *testing.T) {
	t.Parallel()
	c := dial(t, handle(t, func(response http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(response).Flush()
		for range 10 {
			if n, err := response.Write(nil); n != 0 || err != nil {
				t.Errorf("Write of nothing returns %d, %v", n, err)
			}
			_ = http.NewResponseController(response).Flush()
		}
	}))
	c.get(1, "/")
	if a := c.awaitAnswer(1); a.frames != 1 { // For END_STREAM.
		t.Errorf("%d frames of DATA arrive", a.frames)
	}
}

// Writes and flushes of a stream that was reset fail with the reason.
func TestWriteAfterReset(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	c := dial(t, handle(t, func(response http.ResponseWriter, request *http.Request) {
		defer close(done)
		controller := http.NewResponseController(response)
		if err := controller.EnableFullDuplex(); err != nil {
			t.Error(err)
		}
		_ = controller.Flush()
		<-request.Context().Done()
		_, err := io.WriteString(response, "late")
		for _, err := range []error{err, controller.Flush()} {
			if reset, ok := errors.AsType[*h2.StreamError](err); !ok || reset.Code != http2.ErrCodeCancel || !reset.ByClient {
				t.Errorf("the error is %v", err)
			}
		}
	}))
	c.post(1, "/")
	c.await(http2.FrameHeaders, 1)
	c.must(c.WriteRSTStream(1, http2.ErrCodeCancel))
	<-done
	c.sync()
	if frames := append(c.arrived(http2.FrameData), c.arrived(http2.FrameHeaders)...); len(frames) > 0 {
		t.Errorf("frames follow RST_STREAM: %v", frames)
	}
}

// TryWrite queues data between the writes of a handler, within the windows, and nothing before and after the response.
func TestTryWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		streams, flush, finish := make(chan h2.Stream, 1), make(chan struct{}), make(chan struct{})
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
			stream, _ := response.(h2.Stream)
			streams <- stream
			<-flush
			if request.URL.Path == "/write" {
				_, _ = response.Write(make([]byte, 200))
			}
			_ = http.NewResponseController(response).Flush()
			<-finish
		})})
		c := newClient(t, pipes.Dial(t), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
		try := func(stream h2.Stream, size int, want bool) {
			t.Helper()
			flush, ok := stream.TryWrite(make([]byte, size))
			if ok != want {
				t.Errorf("TryWrite of %d bytes returns %v", size, ok)
			}
			if flush != nil {
				flush()
			}
		}
		c.get(1, "/")
		stream := <-streams
		try(stream, 1, false) // The headers come first.
		flush <- struct{}{}
		c.await(http2.FrameHeaders, 1)
		try(stream, 101, false)
		try(stream, 60, true)
		try(stream, 41, false)
		try(stream, 40, true)
		try(stream, 1, false)
		received := 0
		for received < 100 {
			received += len(c.await(http2.FrameData, 1).payload)
		}
		c.must(c.WriteWindowUpdate(1, 1000))
		synctest.Wait()
		finish <- struct{}{}
		synctest.Wait()
		try(stream, 1, false) // It has ended.
		if a := c.awaitAnswer(1); a.body != "" || a.reset {
			t.Errorf("the response goes on: %+v", a)
		}

		c.get(3, "/write")
		stream = <-streams
		flush <- struct{}{}
		synctest.Wait() // The handler waits for the window.
		c.must(c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 150}))
		synctest.Wait()
		try(stream, 1, false)
		c.must(c.WriteWindowUpdate(3, 100))
		synctest.Wait()
		try(stream, 50, true)
		finish <- struct{}{}
		if a := c.awaitAnswer(3); len(a.body) != 250 {
			t.Errorf("%d bytes arrive", len(a.body))
		}

		c.headers(5, true, request(http.MethodHead, "/")...)
		stream = <-streams
		flush <- struct{}{}
		c.await(http2.FrameHeaders, 5)
		try(stream, 1, false) // The response has no body.
		finish <- struct{}{}
	})
}

// TryWrite starts to write once the queue is half full, and does not wait for the flush: one message to each of many streams of a
// connection may be more than the queue holds.
func TestTryWriteWritesBeforeFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		streams, finish := make(chan h2.Stream, 1), make(chan struct{})
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(response).Flush()
			stream, _ := response.(h2.Stream)
			streams <- stream
			<-finish
		})})
		c := newClient(t, pipes.Dial(t))
		c.get(1, "/")
		stream := <-streams
		c.await(http2.FrameHeaders, 1)
		synctest.Wait() // Nothing is being written.
		flush, ok := stream.TryWrite(make([]byte, 15<<10))
		if !ok || flush == nil {
			t.Fatalf("TryWrite returns %v, and a flush: %v", ok, flush != nil)
		}
		if _, ok := stream.TryWrite(make([]byte, 2<<10)); !ok {
			t.Fatal("TryWrite returns false")
		}
		for received := 0; received < 17<<10; {
			received += len(c.await(http2.FrameData, 1).payload)
		}
		flush()
		close(finish)
		c.awaitAnswer(1)
	})
}

// TryWrite may race with the end of the handler: nothing follows END_STREAM.
func TestTryWriteAtTheEnd(t *testing.T) {
	t.Parallel()
	var writing sync.WaitGroup
	c := dial(t, handle(t, func(response http.ResponseWriter, request *http.Request) {
		_ = http.NewResponseController(response).Flush()
		stream, _ := response.(h2.Stream)
		begun := make(chan struct{})
		for range 8 { // They queue for the lock of the connection, where one of them gets it as the response ends.
			writing.Go(func() {
				begun <- struct{}{}
				for request.Context().Err() == nil {
					if flush, _ := stream.TryWrite([]byte("x")); flush != nil {
						flush()
					}
				}
			})
		}
		for range 8 {
			<-begun
		}
	}))
	for i := range 150 {
		id := uint32(1 + 2*i)
		c.get(id, "/"+strconv.Itoa(i))
		if a := c.awaitAnswer(id); a.reset {
			t.Fatalf("the response is %+v", a)
		}
		writing.Wait()
		c.must(c.WriteWindowUpdate(0, 1<<16)) // Enough for what was written, as a stream's window is as large.
		c.sync()
		if frames := c.arrived(http2.FrameData); len(frames) > 0 {
			t.Fatalf("%d frames of DATA follow END_STREAM", len(frames))
		}
	}
}

// A client may open its windows as often as it takes DATA, however large a write of the handler is.
func TestLargeWrite(t *testing.T) {
	t.Parallel()
	const window = 1 << 10
	const size = 4096 * window
	c := dial(t, handle(t, func(response http.ResponseWriter, _ *http.Request) {
		_, _ = response.Write(make([]byte, size))
	}), http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	c.get(1, "/")
	for received := 0; received < size; {
		n := len(c.await(http2.FrameData, 1).payload)
		received += n
		c.must(c.WriteWindowUpdate(0, uint32(n)), c.WriteWindowUpdate(1, uint32(n)))
	}
}
