package live_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// A follower that is too slow loses its queue, not its notes, and holds up nobody.
func TestFollowerOverflow(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]live.Filter{"location": at(here), "rectangle": world} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const count = 500
			store := memorystore.New()
			hub := newHub(t, live.Options{Store: store})
			slow, fast := newStream(), newStream()
			slow.gate = make(chan struct{}, 10*count)
			follow(t, hub, live.Request{Filter: filter}, slow)
			slow.gate <- struct{}{} // "current", after which it waits at the first note.
			slow.waitCurrent()
			follow(t, hub, live.Request{Filter: filter}, fast)
			fast.waitCurrent()
			var want []string
			for i := range count {
				want = append(want, fmt.Sprint(i))
				leave(t, store, here, want[i])
				fast.waitFor(i + 1)
			}
			if overflows := hub.Counts().Overflows; overflows == 0 {
				t.Error("the queue of the slow follower did not overflow")
			}
			close(slow.gate)
			slow.waitFor(count)
			slow.check(t, want...)
			fast.check(t, want...)
		})
	}
}

// The notes that an overflow drops may be older than the retention, by the time that they were queued.
func TestFollowerOverflowAfterForget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const retention = 10 * time.Second
		store := memorystore.New()
		hub := live.NewHub(live.Options{Store: store, Retention: retention})
		defer hub.Close()
		slow := newStream()
		slow.gate = make(chan struct{}, 1)
		end := follow(t, hub, live.Request{Filter: at(here)}, slow)
		slow.gate <- struct{}{}
		slow.waitCurrent()
		leave(t, store, here, "sent") // It waits at the gate.
		synctest.Wait()
		leave(t, store, here, "queued")
		synctest.Wait()
		time.Sleep(retention + time.Second) // of the fake clock
		if _, err := store.Forget(t.Context(), notes.Now()-retention.Nanoseconds()); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			leave(t, store, here, fmt.Sprint(i))
		}
		synctest.Wait()
		if hub.Counts().Overflows == 0 {
			t.Error("the queue did not overflow")
		}
		close(slow.gate)
		synctest.Wait()
		if texts := slow.texts(); slow.resets == 0 && !slices.Contains(texts, "queued") {
			t.Errorf("%q and %d others were received, and no reset", texts[0], len(texts)-1)
		}
		_ = end()
		_ = store.Close()
	})
}
