package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// recorded is a connection that remembers what is written to it.
type recorded struct {
	net.Conn

	writes []string
	err    error
}

func (r *recorded) Write(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	r.writes = append(r.writes, string(p))
	return len(p), nil
}

func (r *recorded) Close() error { return nil }

// ack returns the answer to a PING with some data.
func ack(data byte) []byte {
	return append(bytes.Clone(pingAckHeader), bytes.Repeat([]byte{data}, 8)...)
}

func write(t *testing.T, conn net.Conn, p []byte) {
	t.Helper()
	if n, err := conn.Write(p); n != len(p) || err != nil {
		t.Errorf("wrote %d of %d bytes, %v", n, len(p), err)
	}
}

func check(t *testing.T, below *recorded, want ...string) {
	t.Helper()
	if got := strings.Join(below.writes, " | "); got != strings.Join(want, " | ") {
		t.Errorf("%d writes, %q, want %d, %q", len(below.writes), got, len(want), want)
	}
}

func TestTheAnswerToAPingJoinsTheNextWrite(t *testing.T) {
	t.Parallel()
	below := &recorded{}
	conn := &calmConn{Conn: below}
	write(t, conn, []byte("first"))
	write(t, conn, ack(1))
	check(t, below, "first")
	write(t, conn, []byte("second"))
	check(t, below, "first", string(ack(1))+"second")
	write(t, conn, ack(2))
	write(t, conn, ack(3))
	check(t, below, "first", string(ack(1))+"second", string(ack(2))+string(ack(3)))
	large := bytes.Repeat([]byte("x"), joinBytes+1)
	write(t, conn, ack(4))
	write(t, conn, large)
	check(t, below, "first", string(ack(1))+"second", string(ack(2))+string(ack(3)), string(ack(4)), string(large))
}

func TestTheAnswerToAPingIsWrittenIfNothingElseIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		below := &recorded{}
		conn := &calmConn{Conn: below}
		for range 3 {
			write(t, conn, ack(1))
			time.Sleep(2 * holdFor)
			synctest.Wait()
		}
		check(t, below, string(ack(1)), string(ack(1)), string(ack(1)))
		write(t, conn, ack(2))
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * holdFor)
		check(t, below, string(ack(1)), string(ack(1)), string(ack(1)))
	})
}

func TestAFailedAnswerFailsTheNextWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		below := &recorded{err: errors.New("broken")}
		conn := &calmConn{Conn: below}
		write(t, conn, ack(1))
		time.Sleep(2 * holdFor)
		if _, err := conn.Write([]byte("x")); !errors.Is(err, below.err) {
			t.Errorf("got %v, want %v", err, below.err)
		}
	})
}

func TestTheWritingSideCanBeClosedAlone(t *testing.T) {
	t.Parallel()
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := NewListener(inner)
	defer listener.Close()
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		t.Fatal("net/http will not find CloseWrite")
	}
	write(t, conn, []byte("the end"))
	if err := half.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client); err != nil || string(got) != "the end" {
		t.Errorf("the client gets %q, %v", got, err)
	}
	write(t, client, []byte("still heard"))
	heard := make([]byte, len("still heard"))
	if _, err := io.ReadFull(conn, heard); err != nil || string(heard) != "still heard" {
		t.Errorf("the server gets %q, %v", heard, err)
	}
}

func TestWhatOnlyLooksLikeAnAnswerIsNotHeld(t *testing.T) {
	t.Parallel()
	below := &recorded{}
	conn := &calmConn{Conn: below}
	ping := ack(1)
	ping[4] = 0 // Without the flag ACK, it is a PING of the server's own.
	for _, p := range [][]byte{ping, ack(1)[:16], append(ack(1), 0)} {
		write(t, conn, p)
	}
	if len(below.writes) != 3 {
		t.Errorf("%d of 3 writes were made at once", len(below.writes))
	}
}
