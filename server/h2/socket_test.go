package h2

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// socketPair returns both ends of a TCP connection with small send buffers, the first one as the server uses it.
func socketPair(t *testing.T) (server net.Conn, client *net.TCPConn) {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err = net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close(); client.Close() })
	for _, conn := range []*net.TCPConn{accepted, client} {
		if err := conn.SetWriteBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
	}
	return newSocket(accepted), client
}

// Both directions carry all bytes at once, although the kernel takes and has a part of them at a time.
func TestSocketCarriesAllBytes(t *testing.T) {
	t.Parallel()
	server, client := socketPair(t)
	sent := make([]byte, 4<<20)
	chacha := rand.NewChaCha8([32]byte{})
	_, _ = chacha.Read(sent)
	var running sync.WaitGroup
	for _, way := range []struct{ from, to net.Conn }{{server, client}, {client, server}} {
		running.Go(func() {
			if n, err := way.from.Write(sent); n != len(sent) || err != nil {
				t.Errorf("Write returns %d, %v", n, err)
			}
		})
		running.Go(func() {
			received := make([]byte, len(sent))
			if _, err := io.ReadFull(way.to, received); err != nil || !bytes.Equal(received, sent) {
				t.Errorf("other bytes arrive, or %v", err)
			}
		})
	}
	running.Wait()
	if n, err := server.Read(nil); n != 0 || err != nil {
		t.Errorf("Read of nothing returns %d, %v", n, err)
	}
	if n, err := server.Write(nil); n != 0 || err != nil {
		t.Errorf("Write of nothing returns %d, %v", n, err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // EOF itself is the contract.
		t.Errorf("Read at the end returns %d, %v", n, err)
	}
}

// A deadline ends reads and writes, those in progress as well, and what was written until then is counted.
func TestSocketDeadlines(t *testing.T) {
	t.Parallel()
	server, client := socketPair(t)
	isTimeout := func(err error) bool {
		timeout, ok := errors.AsType[net.Error](err)
		return errors.Is(err, os.ErrDeadlineExceeded) && ok && timeout.Timeout()
	}
	timer := time.AfterFunc(20*time.Millisecond, func() { _ = server.SetDeadline(time.Unix(1, 0)) })
	defer timer.Stop()
	want := "read tcp " + server.LocalAddr().String() + "->" + server.RemoteAddr().String() + ": i/o timeout"
	if n, err := server.Read(make([]byte, 1)); n != 0 || !isTimeout(err) || err.Error() != want {
		t.Errorf("Read returns %d, %q, want %q", n, err, want)
	}
	if n, err := server.Write([]byte("x")); n != 0 || !isTimeout(err) {
		t.Errorf("Write returns %d, %v", n, err)
	}
	if err := server.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := server.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	written, err := server.Write(make([]byte, 16<<20))
	if written == 0 || written == 16<<20 || !isTimeout(err) {
		t.Errorf("Write to a client that does not read returns %d, %v", written, err)
	}
	_ = server.Close()
	if received, err := io.Copy(io.Discard, client); received != int64(written) || err != nil {
		t.Errorf("%d bytes arrive of %d, %v", received, written, err)
	}
}

// Close ends reads and writes in progress.
func TestSocketClose(t *testing.T) {
	t.Parallel()
	server, _ := socketPair(t)
	var running sync.WaitGroup
	running.Go(func() {
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read returns %v", err)
		}
	})
	running.Go(func() {
		if _, err := server.Write(make([]byte, 16<<20)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write returns %v", err)
		}
	})
	time.Sleep(20 * time.Millisecond) // They are in progress, most probably.
	_ = server.Close()
	running.Wait()
}

// The errors of system calls are those of package net.
func TestSocketErrors(t *testing.T) {
	t.Parallel()
	server, client := socketPair(t)
	if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := server.Read(make([]byte, 1))
	want := "read tcp " + server.LocalAddr().String() + "->" + server.RemoteAddr().String() + ": read: connection reset by peer"
	if !errors.Is(err, syscall.ECONNRESET) || err.Error() != want {
		t.Errorf("Read returns %q, want %q", err, want)
	}
	if _, err = server.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) || !strings.Contains(err.Error(), "write: broken pipe") {
		t.Errorf("Write returns %v", err)
	}
}

// shifted is a TCP connection that adds 1 to each byte.
type shifted struct{ *net.TCPConn }

func (s shifted) Read(p []byte) (int, error) {
	n, err := s.TCPConn.Read(p)
	for i := range p[:n] {
		p[i]++
	}
	return n, err
}

type shiftedListener struct{ *net.TCPListener }

func (l shiftedListener) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	return shifted{conn}, err
}

// The server reads what a connection that embeds a TCP connection reads, and not what that does.
func TestSocketOfConnectionThatChangesBytes(t *testing.T) {
	t.Parallel()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{Handler: http.NotFoundHandler()}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(shiftedListener{listener}) })
	defer running.Wait()
	defer server.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	preface := []byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	for i := range preface {
		preface[i]--
	}
	if _, err := conn.Write(preface); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	frame, err := http2.NewFramer(nil, conn).ReadFrame()
	if _, ok := frame.(*http2.SettingsFrame); !ok {
		t.Errorf("got %v, %v, want SETTINGS", frame, err)
	}
}
