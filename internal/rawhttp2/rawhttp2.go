// Package rawhttp2 is a client of HTTP/2 in clear that tests write and read frame by frame, as the rules have it or
// not.
package rawhttp2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// timeout is when a connection gives up, whatever is done with it.
const timeout = time.Minute

// A Conn is a connection whose first frames have been sent. It is not safe for concurrent use, but that one goroutine
// may read while another one writes.
type Conn struct {
	net.Conn
	*http2.Framer

	headers    bytes.Buffer
	encoder    *hpack.Encoder
	discarding sync.WaitGroup
}

// Dial opens a connection to host:port. It fails all that is done with it after a minute.
func Dial(address string, settings ...http2.Setting) (*Conn, error) {
	return DialFrom("", address, settings...)
}

// DialFrom is Dial from an address of this machine.
func DialFrom(from, address string, settings ...http2.Setting) (*Conn, error) {
	dialer := &net.Dialer{Timeout: timeout}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	raw := &Conn{Conn: conn, Framer: http2.NewFramer(conn, conn)}
	raw.AllowIllegalWrites = true
	raw.encoder = hpack.NewEncoder(&raw.headers)
	_, err = io.WriteString(conn, http2.ClientPreface)
	if err := errors.Join(err, conn.SetDeadline(time.Now().Add(timeout)), raw.WriteSettings(settings...), raw.WriteSettingsAck()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return raw, nil
}

// Discard reads all that comes from now on, until the connection ends, and keeps nothing of it.
func (c *Conn) Discard() {
	c.discarding.Go(func() { _, _ = io.Copy(io.Discard, c.Conn) })
}

// Close closes the connection, and ends what reads it.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.discarding.Wait()
	return err
}

// Block returns the headers of a POST to a path, and more, as the connection's next block.
func (c *Conn) Block(path, contentType string, more ...hpack.HeaderField) []byte {
	c.headers.Reset()
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path}, {Name: ":authority", Value: "x"},
		{Name: "content-type", Value: contentType}, {Name: "te", Value: "trailers"},
	}
	for _, field := range append(fields, more...) {
		_ = c.encoder.WriteField(field) // It goes to memory.
	}
	return slices.Clone(c.headers.Bytes())
}

// ForgetHeaders makes the blocks that follow refer to none of those before.
func (c *Conn) ForgetHeaders() {
	c.encoder.SetMaxDynamicTableSize(0)
}

// Open begins a stream with a POST.
func (c *Conn) Open(stream uint32, path, contentType string, more ...hpack.HeaderField) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.Block(path, contentType, more...), EndHeaders: true})
}
