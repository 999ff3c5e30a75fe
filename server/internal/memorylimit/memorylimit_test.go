package memorylimit

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
)

const base = 100 << 20

// hold returns free memory to the system, which counts until then, allocates bytes and collects garbage. It returns a function that keeps them alive until it is called.
func hold(bytes int) (release func()) {
	debug.FreeOSMemory()
	held := make([]byte, bytes)
	runtime.GC()
	return func() { runtime.KeepAlive(held) }
}

// goal returns the size of the heap at which the collector wants to have finished its next cycle, in bytes.
func goal() int64 {
	samples := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64())
}

// follow runs Follow until the end of the test, and returns once it has set a limit of at least atLeast.
func follow(t *testing.T, atLeast int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { Follow(ctx, base) })
	t.Cleanup(func() {
		cancel()
		following.Wait()
		if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
			t.Errorf("the limit is %d once the context has ended, want none", limit)
		}
	})
	for limit := debug.SetMemoryLimit(-1); limit == math.MaxInt64 || limit < atLeast; limit = debug.SetMemoryLimit(-1) {
		runtime.Gosched()
	}
}

// A process that holds less than the base stays below it, where the collector would let the heap double.
func TestFollowKeepsHeapBelowBase(t *testing.T) {
	release := hold(base * 6 / 10)
	if without := goal(); without < base*11/10 {
		t.Fatalf("without a limit the goal is %d MiB, want twice what is held", without>>20)
	}
	follow(t, base)
	if with := goal(); with > base || with < base*8/10 {
		t.Errorf("the goal is %d MiB, want less than the base, %d", with>>20, base>>20)
	}
	release()
}

// A process that holds more than the base is collected at the pace of one without a limit, also if it grows later.
func TestFollowFollowsLiveHeap(t *testing.T) {
	follow(t, base)
	release := hold(2 * base)
	if with := goal(); with > 5*base/2 {
		t.Fatalf("the goal is %d MiB before the limit follows", with>>20)
	}
	for goal() < 4*base {
		runtime.Gosched()
	}
	release()
}

func TestFollowLeavesLimitOfEnvironment(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "1GiB") // The runtime has read the environment already.
	Follow(t.Context(), base)
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		t.Errorf("the limit is %d", limit)
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ live, overhead, want int64 }{
		{10, 5, 300},
		{200, 0, 300},     // A third of it is garbage.
		{100, 150, 300},   // The overhead leaves 150, of which a third is garbage, too.
		{250, 0, 450},     // Between that and as much as is live.
		{300, 0, 600},     // As with GOGC=100.
		{100, 200, 400},   // As with GOGC=100, beside the overhead.
		{1000, 0, 2700},   // More than that: it is GOGC that determines the pace.
		{100, 1000, 2000}, // As many goroutines have it.
	} {
		if got := limit(300, test.live, test.overhead); got != test.want {
			t.Errorf("the limit for %d and %d is %d, want %d", test.live, test.overhead, got, test.want)
		}
	}
	for live := range int64(1000) {
		for overhead := range int64(1000) {
			if heap := limit(300, live, overhead) - overhead; heap < live+live/2 || live+overhead >= 300 && heap < 2*live {
				t.Fatalf("the limit leaves %d for a live heap of %d beside %d", heap, live, overhead)
			}
		}
	}
}
