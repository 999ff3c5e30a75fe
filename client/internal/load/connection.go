package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// bufferBytes is the size of the read and write buffers, in bytes.
	bufferBytes = 64 << 10
	// receiveWindow is the flow-control window that the load grants the server, for the connection and for each
	// stream, in bytes. It is the largest possible, so that flow control of the load never limits a server.
	receiveWindow = 1<<31 - 1
	// initialWindow is the flow-control window of a connection before its first WINDOW_UPDATE, in bytes
	// (https://www.rfc-editor.org/rfc/rfc9113#section-6.9.2).
	initialWindow = 65_535
	// initialFrame is SETTINGS_MAX_FRAME_SIZE until a server sends another one, in bytes
	// (https://www.rfc-editor.org/rfc/rfc9113#section-4.2).
	initialFrame = 16 << 10
)

var errConnection = errors.New("connection closed")

// connection is one HTTP/2 connection. Its goroutine reads frames, and writes what they trigger.
type connection struct {
	run      *run
	conn     net.Conn
	in       *bufio.Reader
	readDone chan struct{} // closed when the goroutine ends; nil before start

	sent, received atomic.Int64 // bytes

	mu            sync.Mutex // guards the rest, and all writes
	out           *bufio.Writer
	framer        *http2.Framer
	window        int64 // send window of the connection, in bytes
	initialStream int64 // initial send window of a stream, in bytes
	maxStreams    int64
	maxFrame      int64 // longest frame to send, in bytes
	chats         map[uint32]*chat
	blocked       []*chat // chats that wait for the connection's send window
	uncredited    int64   // bytes received since the last WINDOW_UPDATE
	latency       *hdrhistogram.Histogram
	err           error // the reason why the connection ended
}

// countingConn counts the bytes written and read, below HTTP/2 and above TLS.
type countingConn struct {
	net.Conn

	connection *connection
}

func (c *countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.connection.received.Add(int64(n))
	return n, err
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.connection.sent.Add(int64(n))
	return n, err
}

func dial(ctx context.Context, run *run) (*connection, error) {
	conn, err := dialTCP(ctx, &run.options)
	if err != nil {
		return nil, err
	}
	c := &connection{run: run, conn: conn, window: initialWindow, chats: make(map[uint32]*chat), latency: newHistogram()}
	counting := &countingConn{conn, c}
	c.in = bufio.NewReaderSize(counting, bufferBytes)
	c.out = bufio.NewWriterSize(counting, bufferBytes)
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	c.framer.SetReuseFrames()
	if err := c.exchangeSettings(); err != nil {
		transport := "without TLS"
		if run.options.TLS != nil {
			transport = "over TLS"
		}
		return nil, errors.Join(fmt.Errorf("%s does not speak HTTP/2 %s: %w", run.options.Address, transport, err), conn.Close())
	}
	return c, nil
}

func dialTCP(ctx context.Context, options *Options) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	if options.TLS == nil {
		return dialer.DialContext(ctx, "tcp", options.Address)
	}
	config := options.TLS.Clone()
	config.NextProtos = []string{http2.NextProtoTLS}
	return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, "tcp", options.Address)
}

// exchangeSettings sends the client preface and reads the server's SETTINGS, before the first stream.
func (c *connection) exchangeSettings() error {
	if err := c.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	_, _ = c.out.WriteString(http2.ClientPreface)
	_ = c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: receiveWindow})
	_ = c.framer.WriteWindowUpdate(0, receiveWindow-initialWindow)
	if err := c.out.Flush(); err != nil {
		return err
	}
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return err
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		return fmt.Errorf("the first frame is %v, not SETTINGS", frame.Header())
	}
	c.initialStream, c.maxStreams, c.maxFrame = initialWindow, receiveWindow, initialFrame
	if value, ok := settings.Value(http2.SettingMaxFrameSize); ok {
		c.maxFrame = int64(value)
	}
	if value, ok := settings.Value(http2.SettingInitialWindowSize); ok {
		c.initialStream = int64(value)
	}
	if value, ok := settings.Value(http2.SettingMaxConcurrentStreams); ok {
		c.maxStreams = int64(value)
	}
	return errors.Join(c.framer.WriteSettingsAck(), c.conn.SetDeadline(time.Time{}))
}

// open opens a chat. It must be called before start.
func (c *connection) open(index int) (*chat, error) {
	if int64(len(c.chats)) >= c.maxStreams {
		return nil, fmt.Errorf("%s allows %d chats on a connection: use more connections", c.run.options.Address, c.maxStreams)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	// Without a dynamic table, the server's SETTINGS_HEADER_TABLE_SIZE does not matter.
	encoder.SetMaxDynamicTableSize(0)
	scheme := "http"
	if c.run.options.TLS != nil {
		scheme = "https"
	}
	fields := [][2]string{
		{":method", "POST"}, {":scheme", scheme}, {":path", "/routeguide.RouteGuide/RouteChat"}, {":authority", c.run.options.Address},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "routeguide-load"},
	}
	if token := c.run.options.Token; token != "" {
		fields = append(fields, [2]string{"authorization", "Bearer " + token})
	}
	for _, field := range fields {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return nil, err
		}
	}
	chat := &chat{
		connection: c,
		index:      index,
		stream:     uint32(2*len(c.chats) + 1),
		window:     c.initialStream,
		changed:    make(chan struct{}, 1),
	}
	c.chats[chat.stream] = chat
	return chat, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: chat.stream, BlockFragment: block.Bytes(), EndHeaders: true})
}

func (c *connection) start() {
	c.readDone = make(chan struct{})
	go func() {
		defer close(c.readDone)
		err := c.readFrames()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.end(err)
	}()
}

// readFrames handles frames, and flushes once the read buffer is empty. It returns the reason for the end.
func (c *connection) readFrames() error {
	c.flush()
	for {
		frame, err := c.framer.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return errConnection
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errConnection, err)
		}
		c.mu.Lock()
		err = c.handle(frame)
		if err == nil && c.in.Buffered() == 0 {
			err = c.out.Flush()
		}
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// handle handles a frame. The caller holds c.mu.
func (c *connection) handle(frame http2.Frame) error {
	chat := c.chats[frame.Header().StreamID]
	switch frame := frame.(type) {
	case *http2.DataFrame:
		c.uncredited += int64(frame.Length)
		if c.uncredited > receiveWindow/2 {
			_ = c.framer.WriteWindowUpdate(0, uint32(c.uncredited))
			c.uncredited = 0
		}
		if chat != nil {
			chat.receive(frame)
		}
	case *http2.MetaHeadersFrame:
		if chat != nil {
			chat.receiveHeaders(frame)
		}
	case *http2.RSTStreamFrame:
		if chat != nil && frame.ErrCode != http2.ErrCodeNo {
			chat.end(fmt.Errorf("stream reset: %v", frame.ErrCode))
		}
	case *http2.WindowUpdateFrame:
		if frame.StreamID == 0 {
			c.window += int64(frame.Increment)
			c.unblock()
		} else if chat != nil {
			chat.window += int64(frame.Increment)
			chat.sendQueued()
		}
	case *http2.SettingsFrame:
		return c.handleSettings(frame)
	case *http2.PingFrame:
		if !frame.IsAck() {
			return c.framer.WritePing(true, frame.Data)
		}
	case *http2.GoAwayFrame:
		if frame.ErrCode != http2.ErrCodeNo {
			return fmt.Errorf("%w: GOAWAY with %v: %s", errConnection, frame.ErrCode, strings.ToValidUTF8(string(frame.DebugData()), "?"))
		}
	}
	return nil
}

func (c *connection) handleSettings(frame *http2.SettingsFrame) error {
	if frame.IsAck() {
		return nil
	}
	if value, ok := frame.Value(http2.SettingInitialWindowSize); ok {
		for _, chat := range c.chats {
			chat.window += int64(value) - c.initialStream
			chat.sendQueued()
		}
		c.initialStream = int64(value)
	}
	return c.framer.WriteSettingsAck()
}

// unblock resumes the chats that wait for the connection's send window. The caller holds c.mu.
func (c *connection) unblock() {
	blocked := c.blocked
	c.blocked = nil
	for _, chat := range blocked {
		chat.isBlocked = false
		chat.sendQueued()
	}
}

func (c *connection) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.out.Flush(); err != nil {
		c.end(fmt.Errorf("%w: %w", errConnection, err))
	}
}

// end ends all chats of the connection. The caller holds c.mu.
func (c *connection) end(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	for _, chat := range c.chats {
		chat.end(err)
	}
}

func (c *connection) close() {
	_ = c.conn.Close()
	if c.readDone != nil {
		<-c.readDone
	}
}
