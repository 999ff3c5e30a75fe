package logwriter_test

import (
	"bufio"
	"log/slog"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"example.com/routeguide/server/internal/logwriter"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// discardReport is for tests that drop no lines, or write none afterwards.
func discardReport(int64) {}

func TestWriterKeepsOrderAndFlushesOnClose(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	writer := logwriter.New(&out, discardReport)
	var want strings.Builder
	for i := range 1000 {
		line := strings.Repeat("x", i%50) + "\n"
		want.WriteString(line)
		if _, err := writer.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if out.String() != want.String() || writer.Dropped() != 0 {
		t.Errorf("%d bytes were written of %d, and %d lines dropped", out.Len(), want.Len(), writer.Dropped())
	}
	if _, err := writer.Write([]byte("late\n")); err == nil || writer.Dropped() != 1 {
		t.Errorf("a line after Close: got %v, %d dropped", err, writer.Dropped())
	}
}

// When nobody reads the pipe, pipe and queue fill up. Then lines are dropped and counted, and reported once the pipe is
// read again.
func TestWriterDropsAndReportsLinesWhenQueueIsFull(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	var logger *slog.Logger
	writer := logwriter.New(write, func(lines int64) { logger.Warn("dropped", "lines", lines) })
	logger = slog.New(slog.NewTextHandler(writer, nil))
	const lines = 10_000
	for range lines {
		logger.Info(strings.Repeat("x", 200)) // It does not block, or the test would hang.
	}
	if dropped := writer.Dropped(); dropped == 0 || dropped >= lines {
		t.Errorf("%d of %d lines were dropped, want some", dropped, lines)
	}
	for log := bufio.NewScanner(read); ; {
		if !log.Scan() {
			t.Fatalf("the log has ended before the report: %v", log.Err())
		}
		if strings.Contains(log.Text(), "msg=dropped lines=") {
			break
		}
		_, _ = writer.Write([]byte("again\n")) // The report follows a successful write.
	}
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
}

// Close must not block for long on a pipe that nobody reads.
func TestWriterCloseGivesUp(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	writer := logwriter.New(write, discardReport)
	for writer.Dropped() == 0 {
		_, _ = writer.Write([]byte(strings.Repeat("x", 1000) + "\n"))
	}
	if err := writer.Close(); err == nil {
		t.Error("Close returns no error, though nobody reads the pipe")
	}
	_, _ = read.Close(), write.Close() // That ends the write.
}

// On EPIPE, lines are dropped, and the next write is tried.
func TestWriterContinuesAfterWriteError(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = read.Close()
	writer := logwriter.New(write, discardReport)
	for writer.Dropped() < 3 {
		if _, err := writer.Write([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Close(); err != nil {
		t.Error(err)
	}
	_ = write.Close()
}
