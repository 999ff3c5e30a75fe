package h2_test

import (
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"example.com/routeguide/server/h2"
)

// modelWindow is the server's window of a stream in the model, in bytes.
const modelWindow = 4096

// model is what flow control must come to: the windows of both directions, as the client knows them.
type model struct {
	t       *testing.T
	server  *h2.Server
	client  *client
	streams map[uint32]*modelStream
	next    uint32 // stream to open
	window  int    // bytes that the server may send on the connection
	initial int    // the client's SETTINGS_INITIAL_WINDOW_SIZE
	credit  int    // bytes that the client may send on the connection

	mu       sync.Mutex // guards handlers
	handlers map[string]*modelHandler
}

// modelStream is an open stream.
type modelStream struct {
	handler *modelHandler
	// Of the response: bytes that the handler has written or is writing, bytes that have arrived, and bytes that the server may send.
	written, arrived, window int
	// Of the request: bytes that were sent, bytes that the handler was told to read, and bytes that the client may send.
	sent, toRead, credit int
}

// read returns the bytes that the handler has read.
func (s *modelStream) read() int { return min(s.sent, s.toRead) }

// modelHandler is told by channels what to do, which the model closes.
type modelHandler struct{ reads, writes chan int }

func (h *modelHandler) close() {
	close(h.reads)
	close(h.writes)
}

// ServeHTTP reads and writes independently.
func (m *model) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	m.mu.Lock()
	handler := m.handlers[request.URL.Path]
	m.mu.Unlock()
	controller := http.NewResponseController(response)
	_ = controller.Flush()
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() {
		for n := range handler.reads {
			_, _ = io.CopyN(io.Discard, request.Body, int64(n)) // It fails after a reset.
		}
	})
	for n := range handler.writes {
		_, _ = response.Write(make([]byte, n))
		_ = controller.Flush()
	}
}

// open opens a stream.
func (m *model) open() {
	if len(m.streams) == 4 {
		return
	}
	path := "/" + strconv.Itoa(int(m.next))
	handler := &modelHandler{make(chan int, maxSteps), make(chan int, maxSteps)}
	m.mu.Lock()
	m.handlers[path] = handler
	m.mu.Unlock()
	m.streams[m.next] = &modelStream{handler: handler, window: m.initial, credit: modelWindow}
	m.client.post(m.next, path)
	m.next += 2
}

// step does one operation on one stream, with an amount in bytes.
func (m *model) step(operation byte, id uint32, amount int) {
	s := m.streams[id]
	switch c := m.client; operation % 9 {
	case 0:
		m.open()
	case 1:
		c.must(c.WriteWindowUpdate(0, uint32(amount+1)))
		m.window += amount + 1
	case 2:
		c.must(c.WriteSettings(initialWindow(uint32(amount))))
		for _, s := range m.streams {
			s.window += amount - m.initial
		}
		m.initial = amount
	case 3:
		if s != nil {
			c.must(c.WriteWindowUpdate(id, uint32(amount+1)))
			s.window += amount + 1
		}
	case 4:
		if s != nil {
			s.handler.writes <- amount
			s.written += amount
		}
	case 5:
		if s != nil {
			s.handler.reads <- amount
			s.toRead += amount
		}
	case 6:
		if s != nil {
			amount = min(amount, s.credit)
			c.data(id, false, make([]byte, amount))
			s.sent, s.credit, m.credit = s.sent+amount, s.credit-amount, m.credit-amount
		}
	case 7:
		if padding := amount % 256; s != nil && s.credit >= 2*padding+1 {
			c.must(c.WriteDataPadded(id, false, make([]byte, padding), make([]byte, padding)))
			s.sent, s.credit, m.credit = s.sent+padding, s.credit-2*padding-1, m.credit-2*padding-1
		}
	case 8:
		if s != nil {
			c.must(c.WriteRSTStream(id, http2.ErrCodeCancel))
			synctest.Wait() // Or the response might end before.
			s.handler.close()
			delete(m.streams, id)
		}
	}
}

// check compares the model with what has arrived once nothing more does.
func (m *model) check() {
	synctest.Wait()
	for _, e := range m.client.arrived(http2.FrameWindowUpdate) {
		if e.StreamID == 0 {
			m.credit += int(e.number)
		} else if s := m.streams[e.StreamID]; s != nil {
			s.credit += int(e.number)
		}
	}
	for _, e := range m.client.arrived(http2.FrameData) {
		m.window -= len(e.payload)
		if s := m.streams[e.StreamID]; s != nil {
			s.arrived += len(e.payload)
			s.window -= len(e.payload)
			if s.window < 0 && len(e.payload) > 0 {
				m.t.Fatalf("DATA exceeds the window of stream %d by %d bytes", e.StreamID, -s.window)
			}
		}
	}
	if m.window < 0 {
		m.t.Fatalf("DATA exceeds the window of the connection by %d bytes", -m.window)
	}
	if resets := m.client.arrived(http2.FrameRSTStream); len(resets) > 0 {
		m.t.Fatalf("the server resets stream %d: %v", resets[0].StreamID, http2.ErrCode(resets[0].number))
	}
	if m.credit < 1<<19 {
		m.t.Fatalf("%d bytes are left of the client's window of the connection", m.credit)
	}
	unread := 0
	for id, s := range m.streams {
		if s.arrived < s.written && s.window > 0 && m.window > 0 {
			m.t.Fatalf("stream %d waits with %d bytes, though windows of %d and %d are open", id, s.written-s.arrived, s.window, m.window)
		}
		if s.arrived > s.written {
			m.t.Fatalf("%d bytes arrive on stream %d, of %d", s.arrived, id, s.written)
		}
		// A quarter may wait to be given back, and another one of padding.
		free := modelWindow - (s.sent - s.read())
		if s.credit > free || s.credit <= free-modelWindow/2 {
			m.t.Fatalf("the client may send %d bytes on stream %d, though %d are free", s.credit, id, free)
		}
		unread += s.sent - s.read()
	}
	if got := int(m.server.Unread()); got < unread || got > unread+len(m.streams)*modelWindow/4 {
		m.t.Fatalf("%d bytes count as unread, but it is %d", got, unread)
	}
}

// maxSteps is how many operations are done: as many as a handler that is blocked can be told.
const maxSteps = 1000

// FuzzFlowControl does what the input says, three bytes for each operation, and compares the server with a model after each.
func FuzzFlowControl(f *testing.F) {
	randomInputs(f, 30, 300)
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			m := &model{t: t, streams: make(map[uint32]*modelStream), next: 1, window: 65535, initial: 65535, credit: 65535, handlers: make(map[string]*modelHandler)}
			m.server = &h2.Server{StreamWindow: modelWindow, Handler: m}
			m.client = newClient(t, servePipes(t, m.server).Dial(t))
			defer func() {
				for _, s := range m.streams {
					s.handler.close()
				}
				m.client.close()
			}()
			m.open()
			for steps := 0; len(input) >= 3 && steps < maxSteps && m.next < 1000; steps++ {
				amount := int(input[2])
				if amount%2 == 0 {
					amount *= 100
				}
				m.step(input[0], m.next-2-2*uint32(input[1]%4), amount)
				m.check()
				input = input[3:]
			}
		})
	})
}
