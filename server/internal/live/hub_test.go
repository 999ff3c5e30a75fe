package live_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

var here, there = notes.Location{Latitude: 1}, notes.Location{Latitude: 2, Longitude: -1}

// lossy is a store that loses announcements.
type lossy struct {
	notes.Store

	lose func() bool
}

func (l lossy) Subscribe(announce func(notes.Announcement)) func() {
	return l.Store.Subscribe(func(announcement notes.Announcement) {
		if !l.lose() {
			announce(announcement)
		}
	})
}

// Notes whose announcements are lost are read from the store.
func TestHubFindsGaps(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]live.Filter{"location": at(here), "rectangle": world} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memorystore.New()
			var lose atomic.Bool
			hub := newHub(t, live.Options{Store: lossy{store, lose.Load}})
			stream := newStream()
			follow(t, hub, live.Request{Filter: filter}, stream)
			stream.waitCurrent()
			lose.Store(true)
			leave(t, store, here, "lost 1")
			leave(t, store, here, "lost 2")
			lose.Store(false)
			leave(t, store, here, "announced")
			stream.waitFor(3)
			stream.check(t, "lost 1", "lost 2", "announced")
			lose.Store(true) // And no announcement shows the gap.
			leave(t, store, here, "lost 3")
			stream.waitFor(4)
			stream.check(t, "lost 1", "lost 2", "announced", "lost 3")
			if gaps := hub.Counts().Gaps; gaps != 2 {
				t.Errorf("%d gaps, want 2", gaps)
			}
		})
	}
}

// late announces nothing until it is released.
type late struct {
	notes.Store

	release chan struct{}
	hold    atomic.Bool
	forgets bool // it announces notes that were forgotten meanwhile, as their positions only
	running sync.WaitGroup
}

func (l *late) Subscribe(announce func(notes.Announcement)) func() {
	return l.Store.Subscribe(func(announcement notes.Announcement) {
		if !l.hold.Load() {
			announce(announcement)
			return
		}
		announcement.Changes = slices.Clone(announcement.Changes)
		for i := 0; l.forgets && i < len(announcement.Changes); i++ {
			announcement.Changes[i].Note = notes.Note{Position: announcement.Changes[i].Note.Position}
		}
		l.running.Go(func() {
			<-l.release
			announce(announcement)
		})
	})
}

// A note that is forgotten before it is announced is missing: its followers are reset.
func TestHubResetsWhereNotesWereForgotten(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]live.Filter{"location": at(here), "rectangle": world} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &late{Store: memorystore.New(), release: make(chan struct{}), forgets: true}
			hub := newHub(t, live.Options{Store: store, Retention: time.Hour})
			concerned, other := newStream(), newStream()
			follow(t, hub, live.Request{Filter: filter, Newest: 1}, concerned)
			follow(t, hub, live.Request{Filter: at(there)}, other)
			concerned.waitCurrent()
			other.waitCurrent()
			leave(t, store, here, "sent")
			concerned.waitFor(1)
			store.hold.Store(true)
			leave(t, store, here, "forgotten")
			if _, err := store.Forget(t.Context(), notes.Now()); err != nil {
				t.Fatal(err)
			}
			store.hold.Store(false)
			close(store.release)
			store.running.Wait()
			leave(t, store, here, "new")
			leave(t, store, there, "elsewhere")
			concerned.wait(func() bool {
				return slices.ContainsFunc(concerned.heard, func(note *routeguidev1.Note) bool { return note.GetText() == "new" })
			})
			other.waitFor(1)
			if concerned.resets != 1 || other.resets != 0 {
				t.Errorf("the follower was reset %d times, and one of another location %d times", concerned.resets, other.resets)
			}
		})
	}
}

// A follower of a rectangle may have read a note before it is announced, and does not hear it twice.
func TestHubSkipsWhatWasRead(t *testing.T) {
	t.Parallel()
	store := &late{Store: memorystore.New(), release: make(chan struct{})}
	hub := newHub(t, live.Options{Store: store})
	before, after := newStream(), newStream()
	before.direct, after.direct = true, true
	follow(t, hub, live.Request{Filter: world}, before)
	before.waitCurrent()
	store.hold.Store(true)
	leave(t, store, here, "late")
	store.hold.Store(false)
	follow(t, hub, live.Request{Filter: world, Newest: 1}, after)
	after.waitCurrent()
	after.check(t, "late")
	close(store.release)
	store.running.Wait()
	for i, text := range []string{"new", "newer"} {
		leave(t, store, there, text)
		before.waitFor(i + 2)
		after.waitFor(i + 2)
	}
	before.check(t, "late", "new", "newer")
	after.check(t, "late", "new", "newer")
}

// unreachable is a store that cannot be read for a while, and whose announcements are lost meanwhile.
type unreachable struct {
	lossy
}

func (u unreachable) Ends(ctx context.Context) ([]notes.Sequence, error) {
	if u.lose() {
		return nil, notes.ErrUnavailable
	}
	return u.Store.Ends(ctx)
}

// While the store is out of reach, another server may forget notes that were never announced.
func TestHubResetsAfterOutageBeyondRetention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const retention = time.Minute
		store := memorystore.New()
		var lose atomic.Bool
		hub := live.NewHub(live.Options{Store: unreachable{lossy{store, lose.Load}}, Retention: retention})
		defer hub.Close()
		stream := newStream()
		end := follow(t, hub, live.Request{Filter: at(here), Newest: 1}, stream)
		stream.waitCurrent()
		leave(t, store, here, "sent")
		stream.waitFor(1)
		lose.Store(true)
		leave(t, store, here, "forgotten")
		time.Sleep(retention + time.Second) // of the fake clock
		if _, err := store.Forget(t.Context(), notes.Now()-retention.Nanoseconds()); err != nil {
			t.Fatal(err)
		}
		lose.Store(false)
		leave(t, store, here, "new")
		stream.wait(func() bool {
			return slices.ContainsFunc(stream.heard, func(note *routeguidev1.Note) bool { return note.GetText() == "new" })
		})
		if stream.resets != 1 {
			t.Errorf("the follower was reset %d times", stream.resets)
		}
		_ = end()
		_ = store.Close()
	})
}

// renewed is a store whose lineage changes, and which cannot be read for the first time after that.
type renewed struct {
	notes.Store

	announce func(notes.Announcement)
	changes  atomic.Int32 // of the lineage
	failures atomic.Int32 // of Ends, to come
}

func (r *renewed) Subscribe(announce func(notes.Announcement)) func() {
	r.announce = announce
	return r.Store.Subscribe(announce)
}

func (r *renewed) Lineage() string { return fmt.Sprint(r.changes.Load()) }

func (r *renewed) Ends(ctx context.Context) ([]notes.Sequence, error) {
	if r.failures.Add(-1) >= 0 {
		return nil, notes.ErrUnavailable
	}
	return r.Store.Ends(ctx)
}

// A store that was set back says that announcements were missed. Followers are reset, though the store has as many changes as before, and
// cannot be read at first.
func TestHubResetsAfterNewLineage(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]live.Filter{"location": at(here), "rectangle": world} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &renewed{Store: memorystore.New()}
			hub := newHub(t, live.Options{Store: store})
			stream := newStream()
			follow(t, hub, live.Request{Filter: filter, Newest: 1}, stream)
			stream.waitCurrent()
			leave(t, store, here, "sent")
			stream.waitFor(1)
			store.failures.Store(1)
			store.changes.Add(1)
			store.announce(notes.Announcement{Missed: true})
			stream.wait(func() bool { return stream.resets == 1 && len(stream.heard) == 1 })
		})
	}
}

// hung is a store whose Ends hangs.
type hung struct {
	notes.Store

	hang atomic.Bool
}

func (h *hung) Ends(ctx context.Context) ([]notes.Sequence, error) {
	if h.hang.Load() {
		<-ctx.Done()
		return nil, notes.ErrUnavailable
	}
	return h.Store.Ends(ctx)
}

// While a part of the store is out of reach, what the rest announces is delivered without a delay.
func TestHubDeliversWhileStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &hung{Store: memorystore.New()}
		hub := live.NewHub(live.Options{Store: store})
		defer hub.Close()
		stream := newStream()
		end := follow(t, hub, live.Request{Filter: at(here)}, stream)
		stream.waitCurrent()
		store.hang.Store(true)
		for i := range 100 {
			time.Sleep(200 * time.Millisecond) // of the fake clock
			left := time.Now()
			leave(t, store, here, "a")
			stream.waitFor(i + 1)
			if delay := time.Since(left); delay > 0 {
				t.Errorf("note %d comes after %v", i, delay)
			}
		}
		_ = end()
		_ = store.Close()
	})
}

// Where nobody follows, the store is not subscribed to.
func TestHubSubscribesWhileFollowed(t *testing.T) {
	t.Parallel()
	store := &subscribed{Store: memorystore.New(), changed: make(chan bool, 10)}
	hub := newHub(t, live.Options{Store: store})
	for range 2 {
		stream := newStream()
		end := follow(t, hub, live.Request{Filter: at(here)}, stream)
		stream.waitCurrent()
		if !<-store.changed {
			t.Fatal("the hub ended a subscription that it did not have")
		}
		_ = end()
		if <-store.changed {
			t.Fatal("the hub subscribed twice")
		}
	}
	if followers := hub.Counts().Followers; followers != 0 {
		t.Errorf("%d followers are left", followers)
	}
}

// Where nobody follows, the hub costs a note no allocation. It is not parallel: other tests allocate.
func TestHubWithoutFollowersAllocatesNothing(t *testing.T) {
	allocations := func(store notes.Store) float64 {
		note := draft(t, here, "note")
		return testing.AllocsPerRun(1000, func() { store.Append(t.Context(), here, note, notes.Ticket{Owner: ignored{}}) })
	}
	alone, store := allocations(memorystore.New()), memorystore.New()
	hub := newHub(t, live.Options{Store: store})
	stream := newStream()
	end := follow(t, hub, live.Request{Filter: at(there)}, stream)
	stream.waitCurrent()
	followed := allocations(store)
	_ = end()
	hub.Close()
	store = memorystore.New()
	newHub(t, live.Options{Store: store})
	if got := allocations(store); got != alone || got >= followed {
		t.Errorf("a note takes %v allocations, want %v as without a hub, and less than %v with a follower", got, alone, followed)
	}
}

// ignored is an owner that waits for nothing.
type ignored struct{}

func (ignored) Settle(uint64, notes.Receipt, error) {}

type subscribed struct {
	notes.Store

	changed chan bool
}

func (s *subscribed) Subscribe(announce func(notes.Announcement)) func() {
	unsubscribe := s.Store.Subscribe(announce)
	s.changed <- true
	return func() {
		unsubscribe()
		s.changed <- false
	}
}
