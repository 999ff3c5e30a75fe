// Package logwriter is a non-blocking writer for logs: a bounded queue in front of a file that may be slow, stuck or
// broken, as a pipe is whose reader has hung or ended. Lines that find the queue full are dropped and counted, so that
// no call ever waits for its log. It knows nothing of what is logged.
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
	errFull  = errors.New("the log is not read fast enough")
	errStuck = errors.New("the log is not read: its last lines are lost")
)

// A Writer writes lines to a file from a goroutine of its own. Its methods may be called concurrently.
type Writer struct {
	out     io.Writer
	report  func(lines int64)
	dropped atomic.Int64
	more    chan struct{} // has an element if there is something to write, or the writer is closed
	done    chan struct{} // is closed when the goroutine has ended

	mu     sync.Mutex // guards the rest
	queue  []byte
	closed bool
}

// New returns a writer to out. Report is called, by one goroutine at a time, with the number of lines that were
// dropped, once out takes lines again. It may write to the writer. The writer must be closed.
func New(out io.Writer, report func(lines int64)) *Writer {
	writer := &Writer{out: out, report: report, more: make(chan struct{}, 1), done: make(chan struct{})}
	go writer.run()
	return writer
}

// Write queues whole lines, or drops them all. It does not block.
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

// Dropped returns the number of lines that were dropped so far.
func (w *Writer) Dropped() int64 {
	return w.dropped.Load()
}

// Close writes what is queued, and drops all that comes later. If out takes nothing for a second, Close gives up and returns an
// error: the goroutine is stuck in a write then, which only the end of the process ends.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.wake()
	w.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-time.After(flushTimeout):
		return errStuck
	}
}

func (w *Writer) run() {
	defer close(w.done)
	var spare []byte
	reported := int64(0)
	for closed := false; !closed; {
		<-w.more
		w.mu.Lock()
		lines := w.queue
		w.queue, closed = spare[:0], w.closed
		w.mu.Unlock()
		if n, err := w.out.Write(lines); err != nil {
			w.drop(lines[n:])
		} else if dropped := w.dropped.Load(); dropped > reported && !closed {
			w.report(dropped - reported)
			reported = dropped
		}
		spare = lines
	}
}

func (w *Writer) drop(lines []byte) {
	w.dropped.Add(int64(bytes.Count(lines, []byte("\n"))))
}

// wake tells the goroutine to look. The caller holds w.mu.
func (w *Writer) wake() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}
