package h2_test

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"example.com/routeguide/server/h2"
)

// floodLimit is more than the glitches and WINDOW_UPDATE frames that a connection with the default MaxStreams may have at once.
const floodLimit = 5000

// flood sends a frame again and again, until the server ends the connection with ENHANCE_YOUR_CALM. It fails the test if that takes too many.
func (c *client) flood(send func(i int) error) {
	c.t.Helper()
	for i := range floodLimit {
		if send(i) != nil {
			break // The server has ended the connection.
		}
	}
	c.awaitFailure(http2.ErrCodeEnhanceYourCalm)
}

// Floods are frames that cost the server more than the client, or that good clients send seldom: each ends the connection soon.
func TestFloods(t *testing.T) {
	t.Parallel()
	raw := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload ...byte) func(c *client) func(int) error {
		return func(c *client) func(int) error {
			return func(int) error { return c.WriteRawFrame(kind, flags, stream, payload) }
		}
	}
	onStream := func(send func(c *client) error) func(c *client) func(int) error {
		return func(c *client) func(int) error {
			c.post(1, "/")
			return func(int) error { return send(c) }
		}
	}
	// each opens a stream each time, and then does something to it.
	each := func(send func(c *client, stream uint32) error) func(c *client) func(int) error {
		return func(c *client) func(int) error {
			return func(i int) error {
				stream := uint32(1 + 2*i)
				if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.write(request(http.MethodPost, "/")...), EndHeaders: true}); err != nil {
					return err
				}
				return send(c, stream)
			}
		}
	}
	for name, flood := range map[string]func(c *client) func(int) error{
		"SETTINGS": raw(http2.FrameSettings, 0, 0),
		"SETTINGS that change the window": func(c *client) func(int) error {
			return func(i int) error { return c.WriteSettings(initialWindow(uint32(i))) }
		},
		"acknowledgements of SETTINGS":    raw(http2.FrameSettings, http2.FlagSettingsAck, 0),
		"answers to no PING":              raw(http2.FramePing, http2.FlagPingAck, 0, make([]byte, 8)...),
		"PRIORITY":                        raw(http2.FramePriority, 0, 1, make([]byte, 5)...),
		"GOAWAY":                          raw(http2.FrameGoAway, 0, 0, make([]byte, 8)...),
		"unknown frames":                  raw(0x42, 0, 0),
		"WINDOW_UPDATE of the connection": raw(http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 1),
		"WINDOW_UPDATE of a stream":       onStream(func(c *client) error { return c.WriteWindowUpdate(1, 1) }),
		"empty DATA":                      onStream(func(c *client) error { return c.WriteData(1, false, nil) }),
		"padding without DATA":            onStream(func(c *client) error { return c.WriteDataPadded(1, false, nil, []byte{0}) }),
		"malformed requests": func(c *client) func(int) error {
			return func(i int) error {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(1 + 2*i), BlockFragment: c.write(":path", "/"), EndHeaders: true})
			}
		},
		"rapid reset":                each(func(c *client, stream uint32) error { return c.WriteRSTStream(stream, http2.ErrCodeCancel) }),
		"RST_STREAM again and again": onStream(func(c *client) error { return c.WriteRSTStream(1, http2.ErrCodeCancel) }),
		"server-provoked resets by WINDOW_UPDATE of 0": each(func(c *client, stream uint32) error {
			return c.WriteRawFrame(http2.FrameWindowUpdate, 0, stream, make([]byte, 4))
		}),
		"server-provoked resets by WINDOW_UPDATE that overflows": each(func(c *client, stream uint32) error { return c.WriteWindowUpdate(stream, 1<<31-1) }),
		"server-provoked resets by PRIORITY": each(func(c *client, stream uint32) error {
			return c.WritePriority(stream, http2.PriorityParam{StreamDep: stream})
		}),
		"server-provoked resets by PRIORITY of a wrong size": each(func(c *client, stream uint32) error {
			return c.WriteRawFrame(http2.FramePriority, 0, stream, []byte{0})
		}),
		"server-provoked resets by DATA after the end": each(func(c *client, stream uint32) error {
			if err := c.WriteData(stream, true, nil); err != nil {
				return err
			}
			return c.WriteData(stream, true, []byte{0})
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var running, most atomic.Int64
			c := dial(t, handle(t, func(_ http.ResponseWriter, request *http.Request) {
				if now := running.Add(1); now > most.Load() {
					most.Store(now)
				}
				defer running.Add(-1)
				<-request.Context().Done()
			}))
			c.flood(flood(c))
			if most := most.Load(); most > 2*h2.DefaultMaxStreams {
				t.Errorf("%d handlers run at once", most)
			}
		})
	}
}

// Handlers whose streams were reset count until they end: there are never more than twice MaxStreams.
func TestHandlersOfResetStreamsCount(t *testing.T) {
	t.Parallel()
	const maxStreams = 10
	var running atomic.Int64
	release := make(chan struct{})
	c := dial(t, serve(t, &h2.Server{MaxStreams: maxStreams, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		running.Add(1)
		<-release
	})}))
	for i := range uint32(100) {
		c.post(1+2*i, "/")
		c.must(c.WriteRSTStream(1+2*i, http2.ErrCodeCancel))
	}
	c.sync()
	close(release)
	refused := len(c.arrived(http2.FrameRSTStream))
	if refused != 100-2*maxStreams {
		t.Errorf("%d of 100 streams are refused", refused)
	}
	for stream := uint32(1001); ; stream += 2 { // Until the first handlers have ended.
		c.get(stream, "/")
		if !c.awaitAnswer(stream).reset {
			break
		}
	}
	for running.Load() < 2*maxStreams+1 { // Some may not have begun.
		runtime.Gosched()
	}
	if got := running.Load(); got != 2*maxStreams+1 {
		t.Errorf("%d handlers have run", got)
	}
}

// Glitches are forgiven with time, and with streams that end well.
func TestGlitchesDecay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pipes := servePipes(t, &h2.Server{Handler: http.NotFoundHandler()})
		c := newClient(t, pipes.Dial(t))
		_ = c.SetDeadline(time.Time{})
		for range 60 { // 100 a second, for a minute.
			for range 100 {
				c.must(c.WritePriority(1, http2.PriorityParam{}))
			}
			time.Sleep(time.Second)
		}
		c.sync()
	})
	c := dial(t, handle(t, func(http.ResponseWriter, *http.Request) {}))
	for i := range floodLimit {
		c.must(c.WritePriority(1, http2.PriorityParam{}))
		c.get(uint32(1+2*i), "/")
		c.awaitAnswer(uint32(1 + 2*i))
	}
}

// WINDOW_UPDATE frames in answer to DATA are none too many: two for each frame of a small message.
func TestWindowUpdateForEachMessage(t *testing.T) {
	t.Parallel()
	c := dial(t, handle(t, func(response http.ResponseWriter, request *http.Request) {
		buffer := make([]byte, 10)
		for {
			n, err := io.ReadFull(request.Body, buffer)
			if err != nil {
				return
			}
			_, _ = response.Write(buffer[:n])
			_ = http.NewResponseController(response).Flush()
		}
	}))
	c.post(1, "/")
	for range floodLimit {
		c.data(1, false, make([]byte, 10))
		size := len(c.await(http2.FrameData, 1).payload)
		c.must(c.WriteWindowUpdate(1, uint32(size)), c.WriteWindowUpdate(0, uint32(size)))
	}
	c.data(1, true, nil)
	c.awaitAnswer(1)
}

// A window that opens byte by byte, so that each byte of the response costs the server a frame, is a flood.
func TestWindowByteByByte(t *testing.T) {
	t.Parallel()
	c := dial(t, handle(t, writer), initialWindow(0))
	c.get(1, "/1000000")
	c.await(http2.FrameHeaders, 1)
	c.flood(func(int) error { return c.WriteWindowUpdate(1, 1) })
}

// One SETTINGS frame that changes the windows of many streams again and again costs as much as many.
func TestSettingsThatChangeManyWindows(t *testing.T) {
	t.Parallel()
	c := dial(t, handle(t, func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() }))
	for i := range uint32(h2.DefaultMaxStreams) {
		c.get(1+2*i, "/")
	}
	var settings []http2.Setting
	for i := range uint32(1000) {
		settings = append(settings, initialWindow(i))
	}
	c.must(c.WriteSettings(settings...))
	c.awaitFailure(http2.ErrCodeEnhanceYourCalm)
}

// A header block has a limit of CONTINUATION frames, and one of bytes.
func TestContinuationFlood(t *testing.T) {
	t.Parallel()
	for name, fragment := range map[string][]byte{
		"empty":      nil,
		"fields":     bytes.Repeat([]byte{0x82}, 16<<10),
		"long field": bytes.Repeat([]byte{0}, 16<<10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, handle(t, http.NotFound))
			first := []byte{0x82}
			if name == "long field" {
				first = []byte{0x00, 0x7f, 0xff, 0xff, 0x7f} // A name of 268 MB.
			}
			c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first}))
			for range 17 { // No more, or the server would give up reading before the client has read its GOAWAY.
				c.must(c.WriteContinuation(1, false, fragment))
			}
			c.awaitFailure(http2.ErrCodeEnhanceYourCalm)
		})
	}
}

// heap returns the bytes of the heap in use.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// A client that asks and does not read is not read from, before much output is queued: whether it asks for answers to PING, or for responses
// without a body. It is closed after StallTimeout.
func TestClientThatDoesNotRead(t *testing.T) {
	for name, send := range map[string]func(c *http2.Framer, block []byte, i uint32) error{
		"PING": func(framer *http2.Framer, _ []byte, _ uint32) error { return framer.WritePing(false, [8]byte{}) },
		"responses": func(framer *http2.Framer, block []byte, i uint32) error {
			return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1 + 2*i, BlockFragment: block, EndHeaders: true, EndStream: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const stallTimeout = 10 * time.Second
				pipes := servePipes(t, &h2.Server{StallTimeout: stallTimeout, Handler: http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
					response.WriteHeader(http.StatusNoContent)
				})})
				conn := pipes.Dial(t)
				framer := http2.NewFramer(conn, nil)
				if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
					t.Fatal(err)
				}
				if err := framer.WriteSettings(); err != nil {
					t.Fatal(err)
				}
				block := encode(request(http.MethodGet, "/")...)
				before, begin := heap(), time.Now()
				sent := uint32(0)
				for ; sent < 1_000_000; sent++ {
					if synctest.Wait(); send(framer, block, sent) != nil {
						break
					}
				}
				if grown := heap() - before; grown > 2<<20 {
					t.Errorf("the heap grows by %d bytes", grown)
				}
				if sent > 10_000 {
					t.Errorf("%d frames are read of a client that does not read", sent)
				}
				if passed := time.Since(begin); passed < stallTimeout/2 || passed > 2*stallTimeout {
					t.Errorf("the connection ends after %v", passed)
				}
			})
		})
	}
}
