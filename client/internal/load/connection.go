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
	// bufferBytes is how much is read and written at once.
	bufferBytes = 64 << 10
	// ownWindow is how much a server may send before it needs a WINDOW_UPDATE: as much as there is, so
	// that the load is never what it waits for.
	ownWindow = 1<<31 - 1
	// initialWindow is how large a window is at first
	// (https://www.rfc-editor.org/rfc/rfc9113#section-6.9.2).
	initialWindow = 65_535
	// initialFrame is how long a frame may be, unless a server says otherwise
	// (https://www.rfc-editor.org/rfc/rfc9113#section-4.2).
	initialFrame = 16 << 10
)

var errConnection = errors.New("the connection has ended")

// connection is one connection of HTTP/2. A goroutine of its own reads, and writes what is to be written
// because of what it has read.
type connection struct {
	run  *run
	conn net.Conn
	in   *bufio.Reader
	read chan struct{} // is closed when nothing is read any more; nil if that has not begun

	sent, received atomic.Int64 // bytes

	mu            sync.Mutex // guards the rest, and what is written
	out           *bufio.Writer
	framer        *http2.Framer
	window        int64 // what may be sent on the connection
	initialStream int64 // what may be sent on a new stream
	maxStreams    int64
	maxFrame      int64 // how long a frame may be
	chats         map[uint32]*chat
	blocked       []*chat // that have notes to send for which the connection's window is too small
	unread        int64   // what has been received since the last WINDOW_UPDATE
	latency       *hdrhistogram.Histogram
	ended         error // why nothing can be sent any more
}

// counted counts what is written and read.
type counted struct {
	net.Conn

	connection *connection
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.connection.received.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
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
	both := &counted{conn, c}
	c.in = bufio.NewReaderSize(both, bufferBytes)
	c.out = bufio.NewWriterSize(both, bufferBytes)
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	c.framer.SetReuseFrames()
	if err := c.greet(); err != nil {
		how := " without TLS"
		if run.options.TLS != nil {
			how = " by TLS"
		}
		return nil, errors.Join(fmt.Errorf("%s does not speak HTTP/2%s: %w", run.options.Address, how, err), conn.Close())
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

// greet exchanges the settings, before there is a stream.
func (c *connection) greet() error {
	if err := c.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	_, _ = c.out.WriteString(http2.ClientPreface)
	_ = c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: ownWindow})
	_ = c.framer.WriteWindowUpdate(0, ownWindow-initialWindow)
	if err := c.out.Flush(); err != nil {
		return err
	}
	frame, err := c.framer.ReadFrame()
	if err != nil {
		return err
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		return fmt.Errorf("it begins with %v", frame.Header())
	}
	c.initialStream, c.maxStreams, c.maxFrame = initialWindow, ownWindow, initialFrame
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

// open begins a chat. It is called before start.
func (c *connection) open(index int) (*chat, error) {
	if int64(len(c.chats)) >= c.maxStreams {
		return nil, fmt.Errorf("%s takes %d chats on a connection: use more connections", c.run.options.Address, c.maxStreams)
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	// The server's table of headers may be as small as it likes if none is used.
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
	c.read = make(chan struct{})
	go func() {
		defer close(c.read)
		err := c.readFrames()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.end(err)
	}()
}

// readFrames handles what comes, and writes when nothing more has come.
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

// handle does what a frame asks for. The caller holds c.mu.
func (c *connection) handle(frame http2.Frame) error {
	chat := c.chats[frame.Header().StreamID]
	switch frame := frame.(type) {
	case *http2.DataFrame:
		c.unread += int64(frame.Length)
		if c.unread > ownWindow/2 {
			_ = c.framer.WriteWindowUpdate(0, uint32(c.unread))
			c.unread = 0
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
			chat.end(fmt.Errorf("the stream was reset: %v", frame.ErrCode))
		}
	case *http2.WindowUpdateFrame:
		if frame.StreamID == 0 {
			c.window += int64(frame.Increment)
			c.unblock()
		} else if chat != nil {
			chat.window += int64(frame.Increment)
			chat.pump()
		}
	case *http2.SettingsFrame:
		return c.handleSettings(frame)
	case *http2.PingFrame:
		if !frame.IsAck() {
			return c.framer.WritePing(true, frame.Data)
		}
	case *http2.GoAwayFrame:
		if frame.ErrCode != http2.ErrCodeNo {
			return fmt.Errorf("%w: the server says %v: %s", errConnection, frame.ErrCode, strings.ToValidUTF8(string(frame.DebugData()), "?"))
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
			chat.pump()
		}
		c.initialStream = int64(value)
	}
	return c.framer.WriteSettingsAck()
}

// unblock lets the chats go on that have waited for the connection's window. The caller holds c.mu.
func (c *connection) unblock() {
	blocked := c.blocked
	c.blocked = nil
	for _, chat := range blocked {
		chat.isBlocked = false
		chat.pump()
	}
}

// flush writes what is gathered.
func (c *connection) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.out.Flush(); err != nil {
		c.end(fmt.Errorf("%w: %w", errConnection, err))
	}
}

// end ends the chats. The caller holds c.mu.
func (c *connection) end(err error) {
	if c.ended != nil {
		return
	}
	c.ended = err
	for _, chat := range c.chats {
		chat.end(err)
	}
}

func (c *connection) close() {
	_ = c.conn.Close()
	if c.read != nil {
		<-c.read
	}
}
