// Package logwriter is a non-blocking writer for logs: a bounded queue in front of a file that may be slow, blocked or
// broken, such as a pipe whose reader hangs or has ended. When the queue is full, lines are dropped and counted, so that
// logging never blocks a call. It does not know the format of the log.
package logwriter

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queueBytes is the size of the queue, in bytes: some thousand lines.
	queueBytes = 512 << 10
	// flushTimeout is the deadline of Close.
	flushTimeout = time.Second
)

var (
	errFull    = errors.New("log queue full: line dropped")
	errBlocked = errors.New("write the log: blocked, last lines lost")
)

// A Writer writes lines to a file from a goroutine of its own. Its methods may be called concurrently.
type Writer struct {
	out     io.Writer
	report  func(lines int64)
	dropped atomic.Int64  // lines
	wakeup  chan struct{} // has an element if the queue is not empty, or the writer is closed
	done    chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex // guards the rest
	queue  []byte     // whole lines
	closed bool
}

// New returns a writer to out. After the first successful write that follows dropped lines, it calls report with their
// number. Calls of report do not overlap, and report may write to the writer. The writer must be closed.
func New(out io.Writer, report func(lines int64)) *Writer {
	writer := &Writer{out: out, report: report, wakeup: make(chan struct{}, 1), done: make(chan struct{})}
	go writer.run()
	return writer
}

// Write queues whole lines, or drops all of them if the queue is full. It does not block.
func (w *Writer) Write(lines []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.queue)+len(lines) > queueBytes {
		w.drop(lines)
		return 0, errFull
	}
	w.queue = append(w.queue, lines...)
	w.wake()
	return len(lines), nil
}

// Dropped returns the number of dropped lines.
func (w *Writer) Dropped() int64 {
	return w.dropped.Load()
}

// Close flushes the queue. Later lines are dropped. If out blocks for a second, Close gives up and returns an error. Its
// goroutine is then blocked in a write, until the process exits.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.wake()
	w.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-time.After(flushTimeout):
		return errBlocked
	}
}

func (w *Writer) run() {
	defer close(w.done)
	var buffer []byte // swapped with the queue
	reported := int64(0)
	for closed := false; !closed; {
		<-w.wakeup
		w.mu.Lock()
		lines := w.queue
		w.queue, closed = buffer[:0], w.closed
		w.mu.Unlock()
		if n, err := w.out.Write(lines); err != nil {
			w.drop(lines[n:])
		} else if dropped := w.dropped.Load(); dropped > reported && !closed {
			w.report(dropped - reported)
			reported = dropped
		}
		buffer = lines
	}
}

func (w *Writer) drop(lines []byte) {
	w.dropped.Add(int64(bytes.Count(lines, []byte("\n"))))
}

// wake wakes the goroutine. The caller holds w.mu.
func (w *Writer) wake() {
	select {
	case w.wakeup <- struct{}{}:
	default:
	}
}
