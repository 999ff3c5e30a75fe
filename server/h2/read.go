package h2

import (
	"encoding/binary"
	"runtime"

	"golang.org/x/net/http2"
)

// frameHeader is the header of a frame.
type frameHeader struct {
	length int // of the payload, in bytes
	kind   http2.FrameType
	flags  http2.Flags
	stream uint32
}

// maxOrphans is how many handlers may run whose streams have ended before reading yields to them.
const maxOrphans = 16

// read reads and handles frames until the connection ends. An [http2.ConnectionError] is the client's.
func (c *conn) read() error {
	first := true
	for {
		if c.data.left > 0 || c.data.pad > 0 {
			if err := c.resetIfOf(c.readData()); err != nil {
				return err
			}
			continue
		}
		header, payload, err := c.readFrame()
		if err != nil {
			return err
		}
		if first && (header.kind != http2.FrameSettings || header.flags.Has(http2.FlagSettingsAck)) {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		first = false
		c.mu.Lock()
		if err = c.closed; err == nil { // Or a stream would open that nothing ends.
			err = c.handle(header, payload)
		}
		if err == nil {
			err = c.awaitOutput()
		}
		behind := c.handlers > len(c.streams)+maxOrphans
		c.mu.Unlock()
		if behind {
			runtime.Gosched() // Let handlers end: a client that opens and resets streams is faster than they start.
		}
		if err = c.resetIfOf(err); err != nil {
			return err
		}
		if header.kind == http2.FrameHeaders || header.kind == http2.FrameContinuation {
			c.reportState()
		}
	}
}

// resetIfOf resets the stream that err is the error of. It returns other errors.
func (c *conn) resetIfOf(err error) error {
	if stream, ok := err.(http2.StreamError); ok { //nolint:errorlint // It is not wrapped, and this is for each frame.
		return c.resetByError(stream)
	}
	return err
}

// readFrame reads a frame, without the payload of DATA. The payload is valid until the next read.
func (c *conn) readFrame() (frameHeader, []byte, error) {
	if len(c.in.unread()) < frameHeaderSize {
		if err := c.await(frameHeaderSize); err != nil {
			return frameHeader{}, nil, err
		}
	}
	b := c.in.unread()
	header := frameHeader{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   http2.FrameType(b[3]),
		flags:  http2.Flags(b[4]),
		stream: binary.BigEndian.Uint32(b[5:]) &^ (1 << 31),
	}
	if header.length > maxFrame {
		return header, nil, http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	if c.block.stream != 0 && (header.kind != http2.FrameContinuation || header.stream != c.block.stream) {
		return header, nil, http2.ConnectionError(http2.ErrCodeProtocol)
	}
	size := frameHeaderSize
	switch {
	case header.kind != http2.FrameData:
		size += header.length
	case header.flags.Has(http2.FlagDataPadded):
		if header.length == 0 {
			return header, nil, http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		size++ // The length of the padding.
	}
	if len(b) < size {
		if err := c.await(size); err != nil {
			return header, nil, err
		}
	}
	if c.block.stream == 0 {
		c.arrived()
	}
	return header, c.in.take(size)[frameHeaderSize:], nil
}

// await reads until size bytes of a frame have arrived.
func (c *conn) await(size int) error {
	if len(c.in.unread()) == 0 {
		if err := c.in.fill(1); err != nil {
			return err
		}
	}
	c.arrives()
	return c.in.fill(size)
}

// arrives marks the beginning of the arrival of a frame or header block, if there is none yet.
func (c *conn) arrives() {
	c.arrivals.Or(1)
}

// arrived marks the end of the arrival of a frame or header block.
func (c *conn) arrived() {
	if arrivals := c.arrivals.Load(); arrivals%2 == 1 {
		c.arrivals.Store(arrivals + 1)
	}
}

// awaitOutput is backpressure on a client that asks for more than it reads: for answers to PING and SETTINGS, and for responses without a
// body. The caller holds c.mu.
func (c *conn) awaitOutput() error {
	for len(c.output.queued) > 2*maxQueued && c.closed == nil {
		c.startWriter()
		c.output.drained.Wait()
	}
	return c.closed
}

// resetByError resets a stream because of an error of the client. The stream may be unknown.
func (c *conn) resetByError(failure http2.StreamError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spend(); err != nil {
		return err
	}
	if s := c.streams[failure.StreamID]; s != nil {
		c.resetStream(s, failure.Code)
		return nil
	}
	c.reset.add(failure.StreamID)
	c.output.appendReset(failure.StreamID, failure.Code)
	c.startWriter()
	return nil
}

// handle handles a frame. The caller holds c.mu.
func (c *conn) handle(header frameHeader, payload []byte) error {
	switch header.kind { //nolint:exhaustive // Unknown types are ignored (section 5.5).
	case http2.FrameData:
		return c.handleData(header, payload)
	case http2.FrameHeaders:
		return c.handleHeaders(header, payload)
	case http2.FrameContinuation:
		return c.handleContinuation(header, payload)
	case http2.FramePriority:
		return c.handlePriority(header, payload)
	case http2.FrameRSTStream:
		return c.handleReset(header, payload)
	case http2.FrameSettings:
		return c.handleSettings(header, payload)
	case http2.FramePushPromise:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case http2.FramePing:
		return c.handlePing(header, payload)
	case http2.FrameGoAway:
		if header.stream != 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		if header.length < 8 {
			return http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		return c.spend() // The client opens no stream after it, and closes the connection when it is done.
	case http2.FrameWindowUpdate:
		return c.handleWindowUpdate(header, payload)
	default:
		return c.spend() // Unknown types are ignored (section 5.5).
	}
}

func streamError(id uint32, code http2.ErrCode) error {
	return http2.StreamError{StreamID: id, Code: code}
}

// idleStream is the error of a frame on a stream that the client has not opened (section 5.1).
func (c *conn) idleStream() error {
	return http2.ConnectionError(http2.ErrCodeProtocol)
}

// handlePriority ignores a deprecated PRIORITY frame (section 6.3).
func (c *conn) handlePriority(header frameHeader, payload []byte) error {
	switch {
	case header.stream == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case header.length != 5:
		return streamError(header.stream, http2.ErrCodeFrameSize)
	case dependsOn(payload) == header.stream:
		return streamError(header.stream, http2.ErrCodeProtocol)
	}
	return c.spend()
}

// dependsOn returns the stream that a priority names (section 5.3.1 of RFC 7540).
func dependsOn(priority []byte) uint32 {
	return binary.BigEndian.Uint32(priority) &^ (1 << 31)
}

// handleReset ends a stream that the client has reset (section 6.4).
func (c *conn) handleReset(header frameHeader, payload []byte) error {
	switch {
	case header.stream == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case header.length != 4:
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	case header.stream > c.lastStream:
		return c.idleStream()
	}
	if s := c.streams[header.stream]; s != nil {
		c.drop(s)
		if s.finished {
			return nil
		}
		s.abort(&StreamError{Code: http2.ErrCode(binary.BigEndian.Uint32(payload)), ByClient: true})
	}
	return c.spend()
}

// handleSettings applies and acknowledges the client's settings (section 6.5).
func (c *conn) handleSettings(header frameHeader, payload []byte) error {
	isAck := header.flags.Has(http2.FlagSettingsAck)
	switch {
	case header.stream != 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case isAck && header.length != 0 || header.length%6 != 0:
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	case isAck:
		return c.spend()
	}
	for ; len(payload) > 0; payload = payload[6:] {
		setting := http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(payload)), Val: binary.BigEndian.Uint32(payload[2:])}
		if err := setting.Valid(); err != nil {
			return err
		}
		if err := c.applySetting(setting); err != nil {
			return err
		}
	}
	c.output.appendSettingsAck()
	c.startWriter()
	return c.spend()
}

func (c *conn) applySetting(setting http2.Setting) error {
	switch setting.ID { //nolint:exhaustive // The others are about what the server does not send.
	case http2.SettingHeaderTableSize:
		c.output.headers.limit(setting.Val)
	case http2.SettingInitialWindowSize:
		change := int64(setting.Val) - c.initialWindow
		if change == 0 {
			return nil
		}
		c.initialWindow = int64(setting.Val)
		for _, s := range c.streams {
			if s.sendWindow += change; s.sendWindow > maxWindow {
				return http2.ConnectionError(http2.ErrCodeFlowControl)
			}
			s.writable.Signal()
		}
		return c.spendMany(len(c.streams) / settingsStreams)
	}
	return nil
}

// settingsStreams is how many streams may change their windows for one glitch.
const settingsStreams = 16

func (c *conn) spendMany(count int) error {
	c.glitches -= count
	return c.spend()
}

const (
	// updatesPerWrite is how many WINDOW_UPDATE frames a client may send for each write of a handler, and bytesPerUpdate for how many bytes of
	// it one more. Others are glitches, as they are from a client that opens its window byte by byte.
	updatesPerWrite = 8
	bytesPerUpdate  = 64
)

// maxWindow is the largest flow-control window in bytes (section 6.9.1).
const maxWindow = 1<<31 - 1

// handlePing answers a PING (section 6.7).
func (c *conn) handlePing(header frameHeader, payload []byte) error {
	switch {
	case header.stream != 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case header.length != 8:
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	case !header.flags.Has(http2.FlagPingAck):
		c.acknowledge([8]byte(payload))
	case c.draining && [8]byte(payload) == goAwayPing:
		c.endGoAway()
	default:
		return c.spend()
	}
	return nil
}

// handleWindowUpdate lets the server send more (section 6.9).
func (c *conn) handleWindowUpdate(header frameHeader, payload []byte) error {
	if header.length != 4 {
		return http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	if c.updates--; c.updates < 0 {
		if err := c.spend(); err != nil {
			return err
		}
	}
	increment := int64(binary.BigEndian.Uint32(payload) &^ (1 << 31))
	if header.stream == 0 {
		if increment == 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		if c.sendWindow += increment; c.sendWindow > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.wakeNext()
		return nil
	}
	if header.stream > c.lastStream {
		return c.idleStream()
	}
	s := c.streams[header.stream]
	switch {
	case increment == 0:
		return streamError(header.stream, http2.ErrCodeProtocol)
	case s == nil:
		return nil
	}
	if s.sendWindow += increment; s.sendWindow > maxWindow {
		return streamError(header.stream, http2.ErrCodeFlowControl)
	}
	s.writable.Signal()
	return nil
}

// open opens a stream and starts its handler. The caller holds c.mu.
func (c *conn) open(s *stream) {
	c.streams[s.id] = s
	c.handlers++
	c.running.Add(1)
	go s.serve()
}
