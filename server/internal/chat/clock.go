package chat

import "sync/atomic"

// clock gives notes their times: a monotonic clock on that of the machine, which may be set back. Without it,
// the notes of a location could be older than those before them, and stay longer than they need to.
type clock struct {
	machine func() int64 // nanoseconds since 1970
	last    atomic.Int64 // the time that was given last
}

// now returns the machine's time, or the time that was given last if that is later. It may be called
// concurrently.
func (c *clock) now() int64 {
	now := c.machine()
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
