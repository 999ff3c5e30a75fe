// Package rawhttp2 is a cleartext HTTP/2 client for tests that reads and writes single frames, legal or not.
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

// timeout is the deadline of a connection, for all reads and writes.
const timeout = time.Minute

// A Conn is a connection after the client preface and SETTINGS. One goroutine may read while another one writes.
type Conn struct {
	net.Conn
	*http2.Framer

	headers    bytes.Buffer
	encoder    *hpack.Encoder
	discarding sync.WaitGroup
}

// Dial opens a connection to host:port. Its deadline is one minute.
func Dial(address string, settings ...http2.Setting) (*Conn, error) {
	return DialFrom("", address, settings...)
}

// DialFrom is [Dial] from a local IP address; "" means any.
func DialFrom(from, address string, settings ...http2.Setting) (*Conn, error) {
	dialer := &net.Dialer{Timeout: timeout}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return New(conn, settings...)
}

// New is [Dial] on a connection, which it closes if it fails.
func New(conn net.Conn, settings ...http2.Setting) (*Conn, error) {
	raw := &Conn{Conn: conn, Framer: http2.NewFramer(conn, conn)}
	raw.AllowIllegalWrites = true
	raw.encoder = hpack.NewEncoder(&raw.headers)
	_, err := io.WriteString(conn, http2.ClientPreface)
	if err := errors.Join(err, conn.SetDeadline(time.Now().Add(timeout)), raw.WriteSettings(settings...), raw.WriteSettingsAck()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return raw, nil
}

// Discard reads and drops all frames in a goroutine, until the connection ends.
func (c *Conn) Discard() {
	c.discarding.Go(func() { _, _ = io.Copy(io.Discard, c.Conn) })
}

// Close closes the connection and waits for the goroutine of Discard.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.discarding.Wait()
	return err
}

// Block returns the HPACK-encoded header block of a POST to a path. It changes the connection's HPACK state.
func (c *Conn) Block(path, contentType string, more ...hpack.HeaderField) []byte {
	c.headers.Reset()
	fields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path}, {Name: ":authority", Value: "x"},
		{Name: "content-type", Value: contentType}, {Name: "te", Value: "trailers"},
	}
	for _, field := range append(fields, more...) {
		_ = c.encoder.WriteField(field) // Writes to a bytes.Buffer do not fail.
	}
	return slices.Clone(c.headers.Bytes())
}

// ForgetHeaders disables the HPACK dynamic table, so that later blocks do not depend on earlier ones.
func (c *Conn) ForgetHeaders() {
	c.encoder.SetMaxDynamicTableSize(0)
}

// Open opens a stream with the headers of a POST.
func (c *Conn) Open(stream uint32, path, contentType string, more ...hpack.HeaderField) error {
	return c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.Block(path, contentType, more...), EndHeaders: true})
}
