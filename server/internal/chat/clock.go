package chat

import "sync/atomic"

// clock is a monotonic clock for note times, based on the machine's wall clock. The wall clock may be set
// back; a note with an earlier time than the note before it would be kept longer than its retention.
type clock struct {
	wall func() int64 // nanoseconds since 1970
	last atomic.Int64 // latest time returned
}

// now returns the later of the wall clock's time and the last time returned. It may be called concurrently.
func (c *clock) now() int64 {
	now := c.wall()
	for {
		last := c.last.Load()
		if now <= last {
			return last
		}
		if c.last.CompareAndSwap(last, now) {
			return now
		}
	}
}
