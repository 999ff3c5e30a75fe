//go:build linux && !race

package h2

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// toldInterval is how often the scheduler is told of a system call.
const toldInterval = time.Second

// told is when the scheduler was told last, in nanoseconds since start. It is for the process, as the scheduler is.
var (
	told  atomic.Int64
	start = time.Now()
)

// socket is a TCP connection whose system calls Go's scheduler is not told of. They do not wait for the peer, so that no other goroutine need
// take the thread's place. But a call that it is told of wakes the monitor thread of the runtime (sysmon) if all goroutines were waiting, as they are
// between the messages of a server that is not saturated, and that thread then takes a quarter of the server's CPU time.
//
// The monitor also preempts goroutines that run for long. So that it does not sleep for long beside such goroutines, the scheduler is told of
// one call in toldInterval. Where no goroutine gets to such a call, the monitor wakes at the next timer: that of the watchdog is due
// within the same time.
//
// The race detector learns from the calls that it is told of what happens before what: with it, [net.TCPConn] is used.
type socket struct {
	net.Conn

	raw syscall.RawConn
	// One goroutine reads, and one writes. What they share with tryRead and tryWrite is here, since closures would be allocated.
	reading, writing []byte
	readBytes        int
	readErr          error
	writeErr         error
	tryReading       func(fd uintptr) (done bool)
	tryWriting       func(fd uintptr) (done bool)
}

// newSocket returns a connection that reads and writes what conn does. One goroutine at a time may read it, and one may write it.
func newSocket(conn net.Conn) net.Conn {
	tcp := tcpConn(conn)
	if tcp == nil {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	s := &socket{Conn: conn, raw: raw}
	s.tryReading, s.tryWriting = s.tryRead, s.tryWrite
	return s
}

// tcpConn returns the TCP connection whose bytes conn reads and writes, or nil if that is not known.
func tcpConn(conn net.Conn) *net.TCPConn {
	switch conn := conn.(type) {
	case *net.TCPConn:
		return conn
	case interface{ TCPConn() *net.TCPConn }:
		return conn.TCPConn()
	default:
		return nil
	}
}

// Read implements [net.Conn].
func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.reading, s.readBytes, s.readErr = p, 0, nil
	err := s.raw.Read(s.tryReading)
	s.reading = nil
	if err = s.opError("read", err, s.readErr); err == nil && s.readBytes == 0 {
		err = io.EOF
	}
	return s.readBytes, err
}

// Write implements [net.Conn].
func (s *socket) Write(p []byte) (int, error) {
	s.writing, s.writeErr = p, nil
	err := s.raw.Write(s.tryWriting)
	written := len(p) - len(s.writing)
	s.writing = nil
	return written, s.opError("write", err, s.writeErr)
}

// tryRead reads once. It returns false if it must be called again when there is something to read.
func (s *socket) tryRead(fd uintptr) (done bool) {
	n, errno := systemCall(syscall.SYS_READ, fd, s.reading)
	if errno != 0 {
		s.readErr = errno
		return errno != syscall.EAGAIN
	}
	s.readBytes, s.readErr = n, nil
	return true
}

// tryWrite writes what the kernel takes. It returns false if it must be called again when that takes more.
func (s *socket) tryWrite(fd uintptr) (done bool) {
	for len(s.writing) > 0 {
		n, errno := systemCall(syscall.SYS_WRITE, fd, s.writing)
		if errno != 0 {
			s.writeErr = errno
			return errno != syscall.EAGAIN
		}
		s.writing = s.writing[n:]
	}
	s.writeErr = nil
	return true
}

// systemCall reads or writes p, which is not empty.
func systemCall(trap, fd uintptr, p []byte) (n int, errno syscall.Errno) {
	for {
		var done uintptr
		if isTellDue() {
			done, _, errno = syscall.Syscall(trap, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		} else {
			done, _, errno = syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		}
		if errno != syscall.EINTR {
			return int(done), errno
		}
	}
}

// isTellDue returns whether the scheduler is to be told of the next call.
func isTellDue() bool {
	now, last := int64(time.Since(start)), told.Load()
	return now-last >= int64(toldInterval) && told.CompareAndSwap(last, now)
}

// opError returns the error that [net.TCPConn] would return: of waiting for the socket, or of a system call.
func (s *socket) opError(op string, err, errno error) error {
	if err == nil {
		if errno == nil {
			return nil
		}
		err = os.NewSyscallError(op, errno)
	} else if failed, ok := errors.AsType[*net.OpError](err); ok {
		err = failed.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}
