//go:build linux && !race

package h2

import (
	"net"
	"testing"
	"time"
)

// wrapped is a connection that says which TCP connection it passes bytes on to.
type wrapped struct {
	net.Conn

	tcp *net.TCPConn
}

func (w wrapped) TCPConn() *net.TCPConn { return w.tcp }

// TCP connections, and those that wrap one and say so, get a socket.
func TestSocketOfTCP(t *testing.T) {
	t.Parallel()
	_, client := socketPair(t)
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	for name, test := range map[string]struct {
		conn net.Conn
		want bool
	}{
		"TCP":                   {client, true},
		"wrapped TCP":           {wrapped{client, client}, true},
		"wrapped, but not TCP":  {wrapped{pipe, nil}, false},
		"TCP that is changed":   {shifted{client}, false},
		"no connection of TCP":  {pipe, false},
		"TCP behind net.Conn":   {struct{ net.Conn }{client}, false},
		"socket that is closed": {wrapped{pipe, new(net.TCPConn)}, false},
	} {
		conn := newSocket(test.conn)
		if _, ok := conn.(*socket); ok != test.want {
			t.Errorf("%s: got %T", name, conn)
		}
	}
}

// The scheduler is told of a system call now and then, of reads and of writes.
func TestSocketTellsScheduler(t *testing.T) {
	server, client := socketPair(t)
	for name, call := range map[string]func() error{
		"reads": func() error {
			if _, err := client.Write([]byte("x")); err != nil {
				return err
			}
			_, err := server.Read(make([]byte, 1))
			return err
		},
		"writes": func() error {
			if _, err := server.Write([]byte("x")); err != nil {
				return err
			}
			_, err := client.Read(make([]byte, 1))
			return err
		},
	} {
		calls, changes, last := 0, 0, told.Load()
		begun := time.Now()
		for ; time.Since(begun) < 3*toldInterval/2; calls++ {
			if err := call(); err != nil {
				t.Fatal(err)
			}
			if now := told.Load(); now != last {
				changes, last = changes+1, now
			}
		}
		if most := int(time.Since(begun)/toldInterval) + 1; changes == 0 || changes > most {
			t.Errorf("%s: told of %d of %d calls, want 1 to %d", name, changes, calls, most)
		}
	}
}
