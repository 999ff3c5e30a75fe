// Package memorylimit keeps Go's garbage collector from doubling a heap of moderate size. The soft memory limit of
// the runtime, GOMEMLIMIT, alone would do that for a process that never has to hold more than the limit; one that
// does would collect garbage all the time. So this limit follows the live heap. It knows nothing of what the process does.
package memorylimit

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Base is the base of the server, in bytes: a store on the disk with any number of notes holds less, and so do some
// thousands of chats.
const Base = 400 << 20

// interval is the time between two adjustments. Until the next one, a process that grows beyond the limit may spend up to
// half of its CPU time on garbage.
const interval = time.Second

// Follow sets the soft memory limit until ctx ends, and then removes it. The limit is base, in bytes, for a process
// that can do with it, and grows with what the process holds: see limit. If the environment has GOMEMLIMIT, Follow
// does nothing: the operator knows better.
func Follow(ctx context.Context, base int64) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	defer debug.SetMemoryLimit(math.MaxInt64)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		live, overhead := inUse()
		debug.SetMemoryLimit(limit(base, live, overhead))
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// limit returns the limit for a live heap and the overhead that counts towards the limit, too, in bytes. It leaves the
// heap what the overhead leaves of the base, but room for at least half of the live heap as garbage; and once
// live heap and overhead are the base, for as much as GOGC=100 allows, which then determines the pace.
func limit(base, live, overhead int64) int64 {
	heap := base - overhead
	return overhead + max(heap, 3*live-heap)
}

// inUse returns the heap that was live after the last collection, and the memory of the runtime that is neither heap
// objects nor free: stacks, fragmentation and the runtime's own. Both are in bytes.
func inUse() (live, overhead int64) {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
	}
	metrics.Read(samples)
	value := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
	return value(0), value(1) - value(2) - value(3) - value(4)
}
