package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"time"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/server/internal/notes"
)

// result is what some notes took.
type result struct {
	notes     int64 // appended and answered
	read      int64 // notes in the replies
	seconds   float64
	cpu       time.Duration
	written   int64   // bytes to the disk
	resident  int64   // bytes at the most
	anonymous int64   // bytes at the most of those that are no file's
	latency   float64 // median of one writer, in microseconds
}

func (r *result) rate() float64 { return float64(r.notes) / r.seconds }

func (r *result) cost() float64 { return float64(r.cpu.Microseconds()) / float64(r.notes) }

// column returns a figure of each result.
func column(results []result, figure func(*result) float64) []float64 {
	values := make([]float64, len(results))
	for i := range results {
		values[i] = figure(&results[i])
	}
	return values
}

// sampleInterval is the interval of samples of memory. A sample takes about 50 microseconds.
const sampleInterval = 50 * time.Millisecond

// measure runs chats on a store until ctx ends, or until the note with the number limit, and returns what they took in
// the processes pids, of which the first is this one.
func (b *bench) measure(ctx context.Context, store notes.Store, limit int64, pids []int) (result, error) {
	chats := &chats{bench: b, store: store, limit: limit}
	var before, after usage
	if err := before.read(pids); err != nil {
		return result{}, err
	}
	start := time.Now()
	done := make(chan error, 1)
	go func() { done <- chats.run(ctx, b.Chats) }()
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	var result result
	var errs []error
	for running := true; running; {
		select {
		case err := <-done:
			running = false
			errs = append(errs, err)
		case <-ticker.C:
			b.progress.Showf("%d notes answered", chats.answered.Load())
		}
		resident, anonymous, err := memory()
		errs = append(errs, err)
		result.resident, result.anonymous = max(result.resident, resident), max(result.anonymous, anonymous)
	}
	b.progress.End()
	result.seconds = time.Since(start).Seconds()
	errs = append(errs, after.read(pids))
	result.cpu, result.written = after.cpu-before.cpu, after.written-before.written
	result.notes, result.read = chats.answered.Load(), chats.read.Load()
	return result, errors.Join(errs...)
}

// usage is what processes have used so far.
type usage struct {
	cpu     time.Duration
	written int64 // bytes
}

func (u *usage) read(pids []int) error {
	for _, pid := range pids {
		cpu, err := measure.CPU(pid)
		if err != nil {
			return err
		}
		written, err := measure.Written(pid)
		if err != nil {
			return err
		}
		u.cpu += cpu
		u.written += written
	}
	return nil
}

// memory returns the resident memory of this process, and the part of it that is no file's, in bytes.
func memory() (resident, anonymous int64, err error) {
	resident, err = measure.Memory(os.Getpid(), "VmRSS")
	if err != nil {
		return 0, 0, err
	}
	anonymous, err = measure.Memory(os.Getpid(), "RssAnon")
	return resident, anonymous, err
}

// writeAlone appends one note at a time for a while, and returns the median latency in microseconds.
func (b *bench) writeAlone(ctx context.Context, store notes.Store, length time.Duration) (float64, error) {
	var latencies []float64
	for end := time.Now().Add(length); ; {
		number, _ := b.number.next(unlimited)
		location, note := b.note(number)
		start := time.Now()
		if _, err := notes.Append(ctx, store, location, note); err != nil {
			return 0, err
		}
		now := time.Now()
		latencies = append(latencies, float64(now.Sub(start).Nanoseconds())/1e3)
		if now.After(end) {
			return measure.Median(latencies), nil
		}
	}
}

// freeMemory returns unused memory to the operating system, so that a measurement does not count that of the one before.
func freeMemory() {
	debug.FreeOSMemory()
}

// mebibytes returns bytes in MiB.
func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// times is a number of durations.
type times []float64 // milliseconds

func (t *times) since(start time.Time) {
	*t = append(*t, float64(time.Since(start).Nanoseconds())/1e6)
}

func (t *times) String() string { return measure.Spread("%.2f", *t) }
