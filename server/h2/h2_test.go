package h2_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"example.com/routeguide/internal/pipetest"
	"example.com/routeguide/internal/rawhttp2"
	"example.com/routeguide/server/h2"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// start serves a listener until the end of the test, and then checks that no request data is left.
func start(t *testing.T, server *h2.Server, listener net.Listener) {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
			_ = server.Close()
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		if unread := server.Unread(); unread != 0 {
			t.Errorf("%d bytes count as unread after the last stream", unread)
		}
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// serve serves on a port of 127.0.0.1, and returns its address.
func serve(t *testing.T, server *h2.Server) string {
	t.Helper()
	listener := listen(t)
	start(t, server, listener)
	return listener.Addr().String()
}

// handle is serve with a handler and the defaults.
func handle(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	return serve(t, &h2.Server{Handler: handler})
}

// servePipes serves connections within the process.
func servePipes(t *testing.T, server *h2.Server) *pipetest.Listener {
	t.Helper()
	listener := pipetest.Listen()
	start(t, server, listener)
	return listener
}

// event is a frame of the server.
type event struct {
	http2.FrameHeader

	payload []byte              // of DATA and PING
	fields  []hpack.HeaderField // of HEADERS with CONTINUATION
	number  uint32              // the error code of RST_STREAM and GOAWAY, or the increment of WINDOW_UPDATE
	last    uint32              // stream of GOAWAY

	settings map[http2.SettingID]uint32
}

// client is a client of single frames. It reads all the time.
type client struct {
	*rawhttp2.Conn

	t       *testing.T
	encoder *hpack.Encoder
	block   bytes.Buffer
	reading sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	change sync.Cond
	events []event // that no test has taken
	ended  error
}

// write encodes fields, in pairs of name and value, to a header block.
func (c *client) write(fields ...string) []byte {
	c.block.Reset()
	for pair := range slices.Chunk(fields, 2) {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]}) // Writes to a bytes.Buffer do not fail.
	}
	return c.block.Bytes()
}

// randomInputs adds inputs of a size to the seeds of a fuzz target: the same ones each time.
func randomInputs(f *testing.F, count uint64, size int) {
	f.Helper()
	for seed := range count {
		random := rand.New(rand.NewPCG(seed, 0))
		input := make([]byte, size)
		for i := range input {
			input[i] = byte(random.Uint32())
		}
		f.Add(input)
	}
}

// encode encodes fields to a header block that depends on no other one, and on which no other one depends.
func encode(fields ...string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0)
	for pair := range slices.Chunk(fields, 2) {
		_ = encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]}) // Writes to a bytes.Buffer do not fail.
	}
	return block.Bytes()
}

// dial connects to an address of serve.
func dial(t *testing.T, address string, settings ...http2.Setting) *client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, conn, settings...)
}

func newClient(t *testing.T, conn net.Conn, settings ...http2.Setting) *client {
	t.Helper()
	raw, err := rawhttp2.New(conn, settings...)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{Conn: raw, t: t}
	c.change.L = &c.mu
	c.encoder = hpack.NewEncoder(&c.block)
	raw.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.reading.Go(c.read)
	t.Cleanup(c.close)
	return c
}

func (c *client) close() {
	_ = c.Close()
	c.reading.Wait()
}

func (c *client) read() {
	for {
		frame, err := c.ReadFrame()
		c.mu.Lock()
		if err != nil {
			c.ended = err
		} else {
			c.events = append(c.events, newEvent(frame))
		}
		c.change.Broadcast()
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func newEvent(frame http2.Frame) event {
	e := event{FrameHeader: frame.Header()}
	switch frame := frame.(type) {
	case *http2.DataFrame:
		e.payload = slices.Clone(frame.Data())
	case *http2.PingFrame:
		e.payload = slices.Clone(frame.Data[:])
	case *http2.MetaHeadersFrame:
		e.fields = slices.Clone(frame.Fields)
	case *http2.RSTStreamFrame:
		e.number = uint32(frame.ErrCode)
	case *http2.GoAwayFrame:
		e.number, e.last = uint32(frame.ErrCode), frame.LastStreamID
	case *http2.SettingsFrame:
		e.settings = make(map[http2.SettingID]uint32)
		_ = frame.ForeachSetting(func(setting http2.Setting) error {
			e.settings[setting.ID] = setting.Val
			return nil
		})
	case *http2.WindowUpdateFrame:
		e.number = frame.Increment
	}
	return e
}

// take waits for an event that matches, and takes the first such one. It returns false when the connection has ended without.
func (c *client) take(matches func(event) bool) (event, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if i := slices.IndexFunc(c.events, matches); i >= 0 {
			e := c.events[i]
			c.events = slices.Delete(c.events, i, i+1)
			return e, true
		}
		if c.ended != nil {
			return event{}, false
		}
		c.change.Wait()
	}
}

// arrived takes all events of a kind that have arrived, on any stream.
func (c *client) arrived(kind http2.FrameType) []event {
	c.mu.Lock()
	defer c.mu.Unlock()
	var taken []event
	c.events = slices.DeleteFunc(c.events, func(e event) bool {
		if e.Type == kind {
			taken = append(taken, e)
		}
		return e.Type == kind
	})
	return taken
}

// await waits for a frame, and takes it.
func (c *client) await(kind http2.FrameType, stream uint32) event {
	c.t.Helper()
	e, ok := c.take(func(e event) bool { return e.Type == kind && e.StreamID == stream })
	if !ok {
		c.t.Fatalf("the connection ended (%v) without %v on stream %d", c.ended, kind, stream)
	}
	return e
}

// awaitReset waits for RST_STREAM with a code.
func (c *client) awaitReset(stream uint32, code http2.ErrCode) {
	c.t.Helper()
	if got := http2.ErrCode(c.await(http2.FrameRSTStream, stream).number); got != code {
		c.t.Errorf("stream %d is reset with %v, want %v", stream, got, code)
	}
}

// awaitFailure waits for GOAWAY with a code, and for the end of the connection.
func (c *client) awaitFailure(code http2.ErrCode) {
	c.t.Helper()
	if got := http2.ErrCode(c.await(http2.FrameGoAway, 0).number); got != code {
		c.t.Errorf("the connection fails with %v, want %v", got, code)
	}
	c.awaitEnd()
}

// awaitEnd waits for the end of the connection.
func (c *client) awaitEnd() {
	c.t.Helper()
	c.take(func(event) bool { return false })
	if timeout, ok := errors.AsType[net.Error](c.ended); ok && timeout.Timeout() {
		c.t.Error("the server does not end the connection")
	}
}

// must fails the test if a frame could not be written.
func (c *client) must(errs ...error) {
	c.t.Helper()
	if err := errors.Join(errs...); err != nil {
		c.t.Fatal(err)
	}
}

// headers sends HEADERS with fields, in pairs of name and value.
func (c *client) headers(stream uint32, end bool, fields ...string) {
	c.t.Helper()
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.write(fields...), EndHeaders: true, EndStream: end}))
}

// request returns the pseudo-headers of a request, and more fields.
func request(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "http", ":path", path, ":authority", "example.com"}, more...)
}

// get sends a GET request.
func (c *client) get(stream uint32, path string, more ...string) {
	c.t.Helper()
	c.headers(stream, true, request(http.MethodGet, path, more...)...)
}

// post begins a POST request.
func (c *client) post(stream uint32, path string, more ...string) {
	c.t.Helper()
	c.headers(stream, false, request(http.MethodPost, path, more...)...)
}

// data sends DATA.
func (c *client) data(stream uint32, end bool, data []byte) {
	c.t.Helper()
	c.must(c.WriteData(stream, end, data))
}

// sync waits until the server has handled what was sent: it answers a PING.
func (c *client) sync() {
	c.t.Helper()
	c.must(c.WritePing(false, [8]byte{'s', 'y', 'n', 'c'}))
	if _, ok := c.take(func(e event) bool { return e.Type == http2.FramePing && string(e.payload[:4]) == "sync" }); !ok {
		c.t.Fatalf("the connection ended: %v", c.ended)
	}
}

// answer is a response.
type answer struct {
	informational []string // statuses
	status        string
	header        map[string][]string
	body          string
	frames        int // of DATA
	trailer       map[string][]string
	reset         bool
	code          http2.ErrCode
}

// awaitAnswer waits for the end of a response.
func (c *client) awaitAnswer(stream uint32) answer {
	c.t.Helper()
	var a answer
	for {
		e, ok := c.take(func(e event) bool {
			return e.StreamID == stream && (e.Type == http2.FrameHeaders || e.Type == http2.FrameData || e.Type == http2.FrameRSTStream)
		})
		if !ok {
			c.t.Fatalf("the connection ended (%v) before the response of stream %d: %+v", c.ended, stream, a)
		}
		if a.add(e) {
			return a
		}
	}
}

// add adds a frame of the response. It returns whether it is the last one.
func (a *answer) add(e event) bool {
	if e.Type == http2.FrameRSTStream {
		a.reset, a.code = true, http2.ErrCode(e.number)
		return true
	}
	if e.Type == http2.FrameData {
		a.body += string(e.payload)
		a.frames++
		return e.StreamEnded()
	}
	fields := make(map[string][]string)
	for _, field := range e.fields {
		fields[field.Name] = append(fields[field.Name], field.Value)
	}
	switch status := fields[":status"]; {
	case a.status != "":
		a.trailer = fields
	case status[0][0] == '1':
		a.informational = append(a.informational, status[0])
	default:
		a.status, a.header = status[0], fields
	}
	return e.StreamEnded()
}

// StreamEnded is whether HEADERS or DATA have END_STREAM.
func (e event) StreamEnded() bool { return e.Flags.Has(http2.FlagDataEndStream) }

// newLogger returns a logger of errors.
func newLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelError}))
}
