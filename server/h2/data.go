package h2

import (
	"io"

	"golang.org/x/net/http2"
)

// dataFrame is a DATA frame whose payload arrives in parts. Only the payload of DATA is not waited for.
type dataFrame struct {
	stream *stream // nil if the payload is dropped
	left   int     // bytes of data that have not arrived
	pad    int     // bytes of padding after them
	end    bool    // END_STREAM
}

// handleData begins a DATA frame (section 6.1).
func (c *conn) handleData(header frameHeader, payload []byte) error {
	frame := dataFrame{left: header.length, end: header.flags.Has(http2.FlagDataEndStream)}
	if len(payload) > 0 {
		frame.pad = int(payload[0])
		frame.left -= 1 + frame.pad
	}
	if header.stream == 0 || frame.left < 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if header.stream > c.lastStream {
		return c.idleStream()
	}
	if c.received += header.length; c.received >= connWindow/windowPart {
		c.output.appendWindowUpdate(0, c.received)
		c.startWriter()
		c.received = 0
	}
	s := c.streams[header.stream]
	c.data = frame
	if frame.left == 0 && !frame.end {
		if err := c.spend(); err != nil {
			return err
		}
	}
	switch {
	case s == nil && c.reset.has(header.stream):
		return nil
	case s != nil && s.finished:
		return c.dropData(s, header)
	case s == nil || s.inErr != nil:
		return streamError(header.stream, http2.ErrCodeStreamClosed)
	case header.length > s.window:
		return streamError(header.stream, http2.ErrCodeFlowControl)
	case s.length >= 0 && int64(frame.left) > s.length:
		return streamError(header.stream, http2.ErrCodeProtocol)
	}
	s.window -= header.length
	s.consumePadding(header.length - frame.left)
	if s.length >= 0 {
		s.length -= int64(frame.left)
	}
	if c.data.stream = s; frame.left == 0 {
		return c.endData()
	}
	return c.deliver()
}

// dropData drops DATA of a request that was answered, within the window. The caller holds c.mu.
func (c *conn) dropData(s *stream, header frameHeader) error {
	switch s.window -= header.length; {
	case s.window < 0:
		return streamError(s.id, http2.ErrCodeFlowControl)
	case header.flags.Has(http2.FlagDataEndStream):
		c.drop(s)
	case header.length == 0:
		return c.spend()
	}
	return nil
}

// consumePadding gives padding back to the client's window. The caller holds c.mu.
func (s *stream) consumePadding(length int) {
	if s.padding += length; s.padding >= s.conn.server.StreamWindow/windowPart {
		s.window += s.padding
		s.conn.output.appendWindowUpdate(s.id, s.padding)
		s.conn.startWriter()
		s.padding = 0
	}
}

// readData hands what has arrived of a DATA frame to its stream.
func (c *conn) readData() error {
	if len(c.in.unread()) == 0 {
		if err := c.in.fill(1); err != nil {
			return err
		}
	}
	if c.data.left == 0 {
		c.data.pad -= len(c.in.take(min(c.data.pad, len(c.in.unread()))))
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deliver()
}

// deliver hands what was read of a DATA frame to its stream. The caller holds c.mu.
func (c *conn) deliver() error {
	frame := &c.data
	data := c.in.take(min(frame.left, len(c.in.unread())))
	frame.left -= len(data)
	if s := frame.stream; s != nil && s.inErr == nil {
		s.receive(data)
	}
	if frame.left == 0 {
		return c.endData()
	}
	return nil
}

// endData ends the body of a request if its last DATA frame has arrived. The caller holds c.mu.
func (c *conn) endData() error {
	if s := c.data.stream; s != nil && c.data.end && s.inErr == nil {
		return c.endBody(s)
	}
	return nil
}

// endBody half-closes a stream: the client has sent END_STREAM. The caller holds c.mu.
func (c *conn) endBody(s *stream) error {
	if s.finished {
		c.drop(s)
		return nil
	}
	if s.length > 0 {
		return streamError(s.id, http2.ErrCodeProtocol)
	}
	s.inErr = io.EOF
	s.readable.Broadcast()
	return nil
}
