package httpserver

import (
	"net"
	"testing"
)

// Package h2 gets at the TCP connections, on which its system calls cost less.
func TestConnectionsAreOfTCP(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := newLimitListener(listener, 1, 1)
	defer limited.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := limited.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wrapper, ok := conn.(interface{ TCPConn() *net.TCPConn })
	if !ok {
		t.Fatalf("%T does not say which TCP connection it wraps", conn)
	}
	tcp := wrapper.TCPConn()
	if tcp == nil || tcp.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("it wraps %v", tcp)
	}
}
