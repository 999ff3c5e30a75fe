package h2_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"example.com/routeguide/server/h2"
)

func initialWindow(size uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingInitialWindowSize, Val: size}
}

// writer is a handler that writes as many bytes as the path says, in one Write.
func writer(response http.ResponseWriter, request *http.Request) {
	_ = http.NewResponseController(response).Flush()
	size, _ := strconv.Atoi(request.URL.Path[1:])
	_, _ = response.Write(make([]byte, size))
}

// received returns the bytes of DATA that arrive on each stream until nothing more does. It is for synctest.
func (c *client) received() map[uint32]int {
	synctest.Wait()
	sizes := make(map[uint32]int)
	for _, e := range c.arrived(http2.FrameData) {
		if len(e.payload) > 0 {
			sizes[e.StreamID] += len(e.payload)
		}
	}
	return sizes
}

func (c *client) expect(step string, stream uint32, want int) {
	c.t.Helper()
	got := c.received()
	if got[stream] != want || len(got) > 1 {
		c.t.Errorf("%s: %v arrive, want %d on stream %d", step, got, want, stream)
	}
}

// The server sends what the windows of the stream and the connection allow, to the byte: also from windows of zero, and from ones that
// SETTINGS have made negative (section 6.9.2).
func TestSendWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(writer)})
		c := newClient(t, pipes.Dial(t), initialWindow(0))
		c.get(1, "/100000")
		c.await(http2.FrameHeaders, 1)
		c.expect("window of 0", 1, 0)
		c.must(c.WriteWindowUpdate(1, 3))
		c.expect("window of 3", 1, 3)
		c.must(c.WriteSettings(initialWindow(100)))
		c.expect("100 by settings", 1, 100)
		c.must(c.WriteSettings(initialWindow(50)))
		c.expect("window of -50", 1, 0)
		c.must(c.WriteWindowUpdate(1, 40))
		c.expect("window of -10", 1, 0)
		c.must(c.WriteWindowUpdate(1, 10))
		c.expect("window of 0 again", 1, 0)
		c.must(c.WriteWindowUpdate(1, 7))
		c.expect("window of 7", 1, 7)
		c.must(c.WriteWindowUpdate(1, 100_000))
		c.expect("window of the connection", 1, 65535-3-100-7)
		c.must(c.WriteWindowUpdate(0, 1))
		c.expect("1 more byte on the connection", 1, 1)
		c.must(c.WriteWindowUpdate(0, 100_000))
		c.expect("the rest", 1, 100_000-65535-1)
	})
}

// SETTINGS_INITIAL_WINDOW_SIZE changes the windows of all streams.
func TestInitialWindowOfManyStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const streams = 200
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(writer)})
		c := newClient(t, pipes.Dial(t), initialWindow(0))
		for i := range uint32(streams) {
			c.get(1+2*i, "/100")
		}
		for i := range uint32(10) {
			c.must(c.WriteSettings(initialWindow(10 * (i + 1))))
			got := c.received()
			for id := uint32(1); id < 2*streams; id += 2 {
				if got[id] != 10 {
					t.Fatalf("%d bytes arrive on stream %d, want 10", got[id], id)
				}
			}
		}
	})
}

// Streams that wait for the window of the connection are served in turn.
func TestWritersTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipes := servePipes(t, &h2.Server{Handler: http.HandlerFunc(writer)})
		c := newClient(t, pipes.Dial(t), initialWindow(1<<20))
		c.get(1, "/65535") // It uses up the window.
		c.expect("the window of the connection", 1, 65535)
		ids := []uint32{5, 3, 9, 7}
		slices.Sort(ids)
		for _, id := range ids {
			c.get(id, "/100000")
			synctest.Wait()
		}
		for turn := range 20 {
			c.must(c.WriteWindowUpdate(0, 1000))
			c.expect("turn "+strconv.Itoa(turn), ids[turn%4], 1000)
		}
		// A stream whose own window is used up stands in nobody's way, nor does one that is reset.
		c.get(11, "/3000000")
		synctest.Wait()
		c.must(c.WriteRSTStream(3, http2.ErrCodeCancel), c.WriteSettings(initialWindow(0)))
		synctest.Wait()
		c.get(13, "/1000")
		c.must(c.WriteWindowUpdate(13, 1000), c.WriteWindowUpdate(0, 1000))
		c.expect("the only one with a window", 13, 1000)
	})
}

// Streams that are not read stop neither other streams nor the connection, whose window is given back.
func TestUnreadStreamsStopNoOther(t *testing.T) {
	t.Parallel()
	const streams, window = 40, 64 << 10
	server := &h2.Server{StreamWindow: window, Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/wait" {
			<-request.Context().Done()
		}
		_, _ = io.Copy(response, request.Body)
	})}
	c := dial(t, serve(t, server))
	for i := range uint32(streams) {
		c.post(1+2*i, "/wait")
		for range window / (16 << 10) {
			c.data(1+2*i, false, make([]byte, 16<<10))
		}
	}
	c.post(1001, "/")
	c.data(1001, true, []byte("hello"))
	if a := c.awaitAnswer(1001); a.body != "hello" {
		t.Errorf("the response is %+v", a)
	}
	c.sync()
	if unread := server.Unread(); unread != streams*window {
		t.Errorf("%d bytes are unread, want %d", unread, streams*window)
	}
	credit := 65535
	for _, e := range c.arrived(http2.FrameWindowUpdate) {
		if e.StreamID != 0 {
			t.Errorf("stream %d, which is not read, gets %d", e.StreamID, e.number)
		}
		credit += int(e.number)
	}
	if left := credit - streams*window - 5; left < 1<<19 {
		t.Errorf("%d bytes are left of the window of the connection", left)
	}
	c.data(1, false, []byte("x"))
	c.awaitReset(1, http2.ErrCodeFlowControl) // Beyond its window.
	c.close()
}

// A request's window is given back while the handler reads, padding included, and so no client waits forever.
func TestReceiveWindowIsGivenBack(t *testing.T) {
	t.Parallel()
	for name, frame := range map[string]struct{ data, padding int }{
		"large frames": {16 << 10, 0}, "small frames": {10, 0}, "mostly padding": {1, 255}, "padding alone": {0, 255}, "some padding": {1000, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const window = 64 << 10
			server := &h2.Server{StreamWindow: window, Handler: http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
				_, _ = io.Copy(io.Discard, request.Body)
			})}
			c := dial(t, serve(t, server))
			c.post(1, "/")
			left := window
			for sent := 0; sent < 4*window; {
				size := frame.data + frame.padding
				if frame.padding > 0 {
					size++
				}
				for left < size {
					left += int(c.await(http2.FrameWindowUpdate, 1).number)
				}
				if frame.padding > 0 {
					c.must(c.WriteDataPadded(1, false, make([]byte, frame.data), make([]byte, frame.padding)))
				} else {
					c.data(1, false, make([]byte, frame.data))
				}
				sent += size
				left -= size
			}
			c.data(1, true, nil)
			if a := c.awaitAnswer(1); a.status != "200" {
				t.Errorf("the response is %+v", a)
			}
		})
	}
}

// Reading and writing are independent: 250,000 small messages arrive while the client takes nothing of the response.
func TestReadingDoesNotWaitForWriting(t *testing.T) {
	t.Parallel()
	const messages, size = 250_000, 20
	arrived := make(chan int64, 1)
	c := dial(t, handle(t, func(response http.ResponseWriter, request *http.Request) {
		_ = http.NewResponseController(response).Flush()
		var writing sync.WaitGroup
		writing.Go(func() { _, _ = io.WriteString(response, strings.Repeat("x", 100_000)) })
		n, err := io.Copy(io.Discard, request.Body)
		if err != nil {
			t.Error(err)
		}
		arrived <- n
		writing.Wait()
	}), initialWindow(0))
	c.post(1, "/")
	var frames bytes.Buffer
	framer := http2.NewFramer(&frames, nil)
	left := 64 << 10
	for range messages {
		if left < size {
			c.flushFrom(&frames)
			for left < size {
				left += int(c.await(http2.FrameWindowUpdate, 1).number)
			}
		}
		c.must(framer.WriteData(1, false, make([]byte, size)))
		left -= size
	}
	c.must(framer.WriteData(1, true, nil))
	c.flushFrom(&frames)
	if n := <-arrived; n != messages*size {
		t.Errorf("%d bytes arrive, want %d", n, messages*size)
	}
	if data := c.arrived(http2.FrameData); len(data) > 0 {
		t.Errorf("%v arrives without a window", data)
	}
	c.must(c.WriteWindowUpdate(1, 1<<20), c.WriteWindowUpdate(0, 1<<20))
	if a := c.awaitAnswer(1); len(a.body) != 100_000 {
		t.Errorf("%d bytes of the response arrive", len(a.body))
	}
}

// flushFrom sends the frames in a buffer, and empties it.
func (c *client) flushFrom(frames *bytes.Buffer) {
	c.t.Helper()
	_, err := frames.WriteTo(c.Conn)
	c.must(err)
}

// Beyond MaxUnread, streams that send more are reset, but for a little that each may have. What was read counts no longer, and no handler
// that waits for more counts at all.
func TestMaxUnread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const budget = 100 << 10
		release := make(chan struct{})
		server := &h2.Server{MaxUnread: budget, Handler: http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
			if request.URL.Path == "/wait" {
				<-release
			}
			_, _ = io.Copy(io.Discard, request.Body)
		})}
		pipes := servePipes(t, server)
		c := newClient(t, pipes.Dial(t))
		for i := range uint32(100) {
			c.post(1+2*i, "/")
			c.data(1+2*i, false, make([]byte, 10_000)) // Less than what WINDOW_UPDATE gives back at once.
		}
		synctest.Wait()
		if unread := server.Unread(); unread != 0 {
			t.Errorf("%d bytes count as unread, but all are read", unread)
		}
		id := uint32(201)
		var resets []event
		for ; len(resets) == 0 && id < 300; id += 2 {
			c.post(id, "/wait")
			for range 3 {
				c.data(id, false, make([]byte, 10<<10))
			}
			synctest.Wait()
			resets = c.arrived(http2.FrameRSTStream)
		}
		if unread := server.Unread(); len(resets) != 1 || http2.ErrCode(resets[0].number) != http2.ErrCodeEnhanceYourCalm || unread < budget || unread > budget+20<<10 {
			t.Fatalf("with %d bytes unread, the resets are %v", unread, resets)
		}
		c.post(id, "/wait")
		c.data(id, false, make([]byte, 4<<10))
		c.post(id+2, "/wait")
		c.data(id+2, true, make([]byte, 100))
		synctest.Wait()
		if resets := c.arrived(http2.FrameRSTStream); len(resets) > 0 {
			t.Errorf("a stream with 4 KiB is reset: %v", resets)
		}
		c.data(id, false, make([]byte, 1))
		c.data(id, false, make([]byte, 1))
		c.awaitReset(id, http2.ErrCodeEnhanceYourCalm)
		c.close()
		close(release)
		synctest.Wait()
		if unread := server.Unread(); unread != 0 {
			t.Errorf("%d bytes count as unread after the end of the connection", unread)
		}
	})
}
