package wire

import (
	"bytes"
	"errors"
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
	return append([]byte{0, 0, 8, 6, 1, 0, 0, 0, 0}, bytes.Repeat([]byte{data}, 8)...)
}

// ping lets the connection get a PING with some data.
func ping(t *testing.T, conn *calmConn, data byte) {
	t.Helper()
	if err := conn.answer([pingDataSize]byte(bytes.Repeat([]byte{data}, pingDataSize))); err != nil {
		t.Error(err)
	}
}

// data returns a DATA frame.
func data(payload string) []byte {
	return append([]byte{0, byte(len(payload) >> 8), byte(len(payload)), 0, 0, 0, 0, 0, 1}, payload...)
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
	synctest.Test(t, func(t *testing.T) {
		below := &recorded{}
		conn := newCalmConn(below, 0)
		var want []string
		frame := string(data("frame"))
		write(t, conn, []byte(frame))
		want = append(want, frame)
		ping(t, conn, 1)
		check(t, below, want...)
		write(t, conn, []byte(frame))
		want = append(want, string(ack(1))+frame)
		check(t, below, want...)
		ping(t, conn, 2)
		ping(t, conn, 3)
		large := data(strings.Repeat("x", joinBytes))
		write(t, conn, large)
		want = append(want, string(ack(2))+string(ack(3)), string(large))
		check(t, below, want...)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTheAnswerToAPingIsNotWrittenWithinAFrame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		below := &recorded{}
		conn := newCalmConn(below, 0)
		ping(t, conn, 1)
		time.Sleep(2 * holdFor)
		check(t, below) // The server's first frame must be its SETTINGS.
		frame := string(data("frame"))
		write(t, conn, []byte(frame[:5]))
		time.Sleep(2 * holdFor)
		write(t, conn, []byte(frame[5:11]))
		time.Sleep(2 * holdFor)
		check(t, below, frame[:5], frame[5:11])
		write(t, conn, []byte(frame[11:]))
		time.Sleep(2 * holdFor)
		synctest.Wait()
		check(t, below, frame[:5], frame[5:11], frame[11:], string(ack(1)))
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTheAnswerToAPingIsWrittenIfNothingElseIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		below := &recorded{}
		conn := newCalmConn(below, 0)
		frame := data("frame")
		write(t, conn, frame)
		want := []string{string(frame)}
		for range 3 {
			ping(t, conn, 1)
			time.Sleep(2 * holdFor)
			synctest.Wait()
			want = append(want, string(ack(1)))
		}
		check(t, below, want...)
		ping(t, conn, 2)
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * holdFor)
		check(t, below, want...)
	})
}

func TestAFailedAnswerFailsTheNextWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		below := &recorded{}
		conn := newCalmConn(below, 0)
		write(t, conn, data("frame"))
		below.err = errors.New("broken")
		ping(t, conn, 1)
		time.Sleep(2 * holdFor)
		if _, err := conn.Write(data("frame")); !errors.Is(err, below.err) {
			t.Errorf("got %v, want %v", err, below.err)
		}
	})
}

func TestWhoDoesNotReadTheAnswersToPingsIsNotReadFrom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		below := &recorded{}
		conn := newCalmConn(below, 0)
		write(t, conn, data("frame")[:5]) // The rest does not come.
		for range maxHeld {
			ping(t, conn, 1)
		}
		start := time.Now()
		if err := conn.answer([pingDataSize]byte{}); !errors.Is(err, errManyPings) {
			t.Errorf("got %v, want %v", err, errManyPings)
		}
		if waited := time.Since(start); waited < maxWait || len(below.writes) != 1 {
			t.Errorf("it waited for %v and wrote %d times", waited, len(below.writes))
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAClosedConnectionHoldsNothing(t *testing.T) {
	t.Parallel()
	conn := newCalmConn(&recorded{}, 0)
	ping(t, conn, 1) // The server's first frame is not written, so this waits.
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	ping(t, conn, 2)
	if len(conn.held) > 0 || conn.timer.Stop() {
		t.Errorf("%d bytes are held, and a timer runs", len(conn.held))
	}
}
