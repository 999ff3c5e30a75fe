package wire

import (
	"bufio"
	"net"
	"runtime"
)

// readBytes is how much is read from a connection at once.
const readBytes = 32 << 10

// NewListener returns a listener whose connections are read from and written to less often. net/http's
// HTTP/2 server makes two system calls for each frame that it reads, and with many small messages
// those are much of what a message costs: the connections are read with a buffer. Before a write, the
// processor is yielded once, so that what other streams are about to send comes to the next write
// together.
//
// It goes below TLS, if there is any.
func NewListener(listener net.Listener) net.Listener {
	return &bufferedListener{listener}
}

type bufferedListener struct {
	net.Listener
}

func (l *bufferedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &bufferedConn{Conn: conn, reader: bufio.NewReaderSize(conn, readBytes)}, nil
}

// bufferedConn is a connection. Read is called by one goroutine at a time, as it is by net/http.
type bufferedConn struct {
	net.Conn

	reader *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) {
	return c.reader.Read(p)
}

func (c *bufferedConn) Write(p []byte) (int, error) {
	runtime.Gosched()
	return c.Conn.Write(p)
}
