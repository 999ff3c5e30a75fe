package live_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/notes/pebblestore"
	"example.com/routeguide/server/internal/validate"
)

func TestFollowNotesOfLocation(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	hub := newHub(t, live.Options{Store: store})
	for i := range 5 {
		leave(t, store, here, fmt.Sprint(i))
	}
	leave(t, store, there, "elsewhere")
	stream := newStream()
	follow(t, hub, live.Request{Filter: at(here), Newest: 2}, stream)
	stream.waitCurrent()
	stream.check(t, "3", "4")
	leave(t, store, there, "elsewhere")
	leave(t, store, here, "5")
	stream.waitFor(3)
	stream.check(t, "3", "4", "5")
	if stream.current != 1 || stream.resets != 0 {
		t.Errorf("current was said %d times, and reset %d times", stream.current, stream.resets)
	}
}

func TestFollowNotesOfRectangle(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	hub := newHub(t, live.Options{Store: store})
	leave(t, store, here, "older")
	leave(t, store, here, "old")
	leave(t, store, there, "outside")
	stream := newStream()
	follow(t, hub, live.Request{Filter: live.Filter{Rectangle: notes.Rectangle{North: 1, East: 10}}, Newest: 1}, stream)
	stream.waitCurrent()
	leave(t, store, there, "outside")
	leave(t, store, notes.Location{Latitude: 1, Longitude: 10}, "at the edge")
	leave(t, store, notes.Location{Latitude: 1, Longitude: 11}, "outside")
	leave(t, store, here, "new")
	stream.waitFor(3)
	stream.check(t, "old", "at the edge", "new")
}

// With newest 0, only what is left after the start is heard.
func TestFollowNotesNewestZero(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]live.Filter{"location": at(here), "rectangle": world} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memorystore.New()
			hub := newHub(t, live.Options{Store: store})
			leave(t, store, here, "old")
			stream := newStream()
			follow(t, hub, live.Request{Filter: filter}, stream)
			stream.waitCurrent()
			leave(t, store, here, "new")
			stream.waitFor(1)
			stream.check(t, "new")
		})
	}
}

// A call with the last cursor goes on where the stream has come to, and newest does not count.
func TestFollowNotesResumes(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]live.Filter{"location": at(here), "rectangle": world} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memorystore.New()
			hub := newHub(t, live.Options{Store: store})
			leave(t, store, here, "old")
			first := newStream()
			end := follow(t, hub, live.Request{Filter: filter, Newest: 1}, first)
			first.waitCurrent()
			cursor := first.cut()
			if err := end(); !errors.Is(err, context.Canceled) {
				t.Errorf("the call ended with %v", err)
			}
			leave(t, store, here, "meanwhile")
			second := newStream()
			follow(t, hub, live.Request{Filter: filter, Newest: 1, Cursor: cursor}, second)
			second.waitCurrent()
			leave(t, store, here, "new")
			second.waitFor(2)
			second.check(t, "meanwhile", "new")
			if second.resets > 0 {
				t.Error("the stream was reset")
			}
		})
	}
}

// Where it cannot go on, a stream says so, and starts again.
func TestFollowNotesResets(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]live.Filter{"location": at(here), "rectangle": world} {
		for cause, retention := range map[string]time.Duration{"another store": 0, "forgotten notes": time.Nanosecond} {
			t.Run(name+" "+cause, func(t *testing.T) {
				t.Parallel()
				store := memorystore.New()
				hub := newHub(t, live.Options{Store: store, Retention: retention})
				leave(t, store, here, "old")
				first := newStream()
				end := follow(t, hub, live.Request{Filter: filter, Newest: 1}, first)
				first.waitCurrent()
				cursor := first.cut()
				_ = end()
				leave(t, store, here, "lost")
				if retention == 0 {
					store = memorystore.New()
					hub = newHub(t, live.Options{Store: store})
				} else if _, err := store.Forget(t.Context(), notes.Now()); err != nil {
					t.Fatal(err)
				}
				leave(t, store, here, "kept")
				second := newStream()
				follow(t, hub, live.Request{Filter: filter, Newest: 1, Cursor: cursor}, second)
				second.waitCurrent()
				second.check(t, "kept")
				if second.resets != 1 {
					t.Errorf("the stream was reset %d times, want once", second.resets)
				}
			})
		}
	}
}

// A location whose notes were all forgotten can be followed on, if none can have been missed.
func TestFollowNotesResumesAfterForget(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	hub := newHub(t, live.Options{Store: store, Retention: time.Hour})
	leave(t, store, here, "old")
	first := newStream()
	end := follow(t, hub, live.Request{Filter: at(here), Newest: 1}, first)
	first.waitCurrent()
	cursor := first.cut()
	_ = end()
	if _, err := store.Forget(t.Context(), notes.Now()); err != nil {
		t.Fatal(err)
	}
	leave(t, store, here, "new")
	second := newStream()
	follow(t, hub, live.Request{Filter: at(here), Newest: 1, Cursor: cursor}, second)
	second.waitFor(1)
	second.check(t, "new")
	if second.resets > 0 {
		t.Error("the stream was reset")
	}
}

func TestFollowNotesCursorErrors(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	hub := newHub(t, live.Options{Store: store})
	stream := newStream()
	follow(t, hub, live.Request{Filter: at(here)}, stream)
	stream.waitCurrent()
	cursor := stream.cut()
	for name, request := range map[string]live.Request{
		"another location": {Filter: at(there), Cursor: cursor},
		"a rectangle":      {Filter: world, Cursor: cursor},
		"garbage":          {Filter: at(here), Cursor: []byte("garbage that is long enough to be one")},
		"cut":              {Filter: at(here), Cursor: cursor[:len(cursor)-1]},
	} {
		err := hub.FollowNotes(t.Context(), request, newStream())
		if invalid, ok := errors.AsType[*validate.Error](err); !ok || invalid.Field != "cursor" {
			t.Errorf("a cursor of %s: got %v, want an error of the field cursor", name, err)
		}
	}
}

func TestFollowNotesErrTooManyLocations(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	hub := newHub(t, live.Options{Store: store, MaxLocations: 2})
	for i := range 3 {
		leave(t, store, notes.Location{Latitude: int32(i)}, "note")
	}
	if err := hub.FollowNotes(t.Context(), live.Request{Filter: world, Newest: 1}, newStream()); !errors.Is(err, live.ErrTooManyLocations) {
		t.Errorf("got %v, want ErrTooManyLocations", err)
	}
	stream := newStream()
	follow(t, hub, live.Request{Filter: world}, stream)
	stream.waitCurrent()
}

// A call that ends because the server drains sends what was kept so far.
func TestFollowNotesDrains(t *testing.T) {
	t.Parallel()
	draining := errors.New("draining")
	for name, filter := range map[string]live.Filter{"location": at(here), "rectangle": world} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memorystore.New()
			hub := newHub(t, live.Options{Store: lossy{store, func() bool { return true }}, Draining: draining})
			ctx, cancel := context.WithCancelCause(t.Context())
			stream := newStream()
			ended := make(chan error, 1)
			go func() { ended <- hub.FollowNotes(ctx, live.Request{Filter: filter}, stream) }()
			stream.waitCurrent()
			leave(t, store, here, "kept")
			cancel(draining)
			if err := <-ended; !errors.Is(err, draining) {
				t.Errorf("the call ended with %v", err)
			}
			stream.check(t, "kept")
		})
	}
}

// A follower of a rectangle gets a cursor with a note, but not more often than once a second.
func TestFollowNotesSendsCursors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memorystore.New()
		hub := live.NewHub(live.Options{Store: store})
		defer hub.Close()
		stream := newStream()
		stream.direct = true
		end := follow(t, hub, live.Request{Filter: world}, stream)
		stream.waitCurrent()
		before := stream.cursors
		for i := range 50 { // in five seconds
			time.Sleep(100 * time.Millisecond)
			leave(t, store, here, "note")
			stream.waitFor(i + 1)
		}
		if got := stream.cursors - before; got != 5 {
			t.Errorf("%d cursors, want 5", got)
		}
		_ = end()
		_ = store.Close()
	})
}

// A follower of a rectangle gets on, although each of its connections breaks before it has caught up.
func TestFollowNotesGetsOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const count, perCall = 2000, 200
		store := memorystore.New()
		hub := live.NewHub(live.Options{Store: store})
		defer hub.Close()
		stream := newStream()
		end := follow(t, hub, live.Request{Filter: world}, stream)
		stream.waitCurrent()
		_ = end()
		cursor := stream.cut()
		for i := range count {
			leave(t, store, notes.Location{Latitude: int32(i)}, "note")
		}
		heard := make(map[int32]bool)
		calls := 0
		for ; len(heard) < count && calls < 2*count/perCall; calls++ {
			stream := newStream()
			stream.delay = 10 * time.Millisecond // It has a few seconds.
			end := follow(t, hub, live.Request{Filter: world, Cursor: cursor}, stream)
			stream.wait(func() bool { return len(stream.heard) >= perCall || stream.current > 0 })
			cursor = stream.cut()
			_ = end()
			for _, note := range stream.heard {
				heard[note.GetLocation().GetLatitude()] = true
			}
		}
		if len(heard) < count {
			t.Errorf("%d of %d notes are heard by %d calls", len(heard), count, calls)
		}
		_ = store.Close()
	})
}

// Every follower hears every log in order, while notes are left, connections are cut, announcements are lost and followers stall.
func TestFollowNotesKeepsOrder(t *testing.T) {
	t.Parallel()
	stores := map[string]func(t *testing.T) notes.Store{
		"memory": func(*testing.T) notes.Store { return memorystore.New() },
		"pebble": func(t *testing.T) notes.Store {
			t.Helper()
			store, err := pebblestore.Open(pebblestore.Options{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			return store
		},
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := open(t)
			t.Cleanup(func() { _ = store.Close() })
			var count atomic.Int64
			hub := newHub(t, live.Options{Store: lossy{store, func() bool { return count.Add(1)%97 == 0 }}})
			const writers, perWriter, locations = 4, 400, 3
			var following sync.WaitGroup
			written, finish := context.WithCancel(t.Context())
			defer finish()
			for i := range 8 {
				filter := world
				if i%2 == 0 {
					filter = at(place(i / 2 % locations))
				}
				following.Go(func() { followRandomly(t, written, hub, store, filter, uint64(i)) })
			}
			var writing sync.WaitGroup
			for i := range writers {
				writing.Go(func() {
					for j := range perWriter {
						leave(t, store, place((i+j)%locations), fmt.Sprintf("%d.%d", i, j))
					}
				})
			}
			writing.Wait()
			finish()
			following.Wait()
			t.Logf("%+v", hub.Counts())
		})
	}
}

func place(i int) notes.Location { return notes.Location{Latitude: int32(i), Longitude: int32(-i)} }

// followRandomly follows with calls that end at random moments, until written ends and all was heard. It checks that it was heard in
// order, and at a location once.
func followRandomly(t *testing.T, written context.Context, hub *live.Hub, store notes.Store, filter live.Filter, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	heard := make(map[notes.Location][]*routeguidev1.Note)
	var cursor []byte
	for last := false; !last; {
		last = written.Err() != nil
		stream := newStream()
		stream.direct = random.IntN(2) == 0
		stop := context.AfterFunc(written, stream.wake)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		request := live.Request{Filter: filter, Newest: 1000, Cursor: cursor}
		go func() { ended <- hub.FollowNotes(ctx, request, stream) }()
		if last {
			stream.waitCurrent()
		} else {
			count := random.IntN(100)
			stream.wait(func() bool { return len(stream.heard) >= count || written.Err() != nil })
		}
		stop()
		// What is sent after the last cursor that was read comes again.
		cursor = stream.cut()
		cancel()
		<-ended
		for _, note := range stream.heard {
			location := notes.Location{Latitude: note.GetLocation().GetLatitude(), Longitude: note.GetLocation().GetLongitude()}
			heard[location] = append(heard[location], note)
		}
		if stream.resets > 0 {
			t.Errorf("a stream was reset")
		}
	}
	for i := range 3 {
		if filter.Location != nil && *filter.Location != place(i) {
			continue
		}
		var log, got []notes.Position
		for chunk, err := range store.Range(t.Context(), place(i), notes.Everything) {
			if err != nil {
				t.Error(err)
				return
			}
			for j := range chunk {
				log = append(log, chunk[j].Position)
			}
		}
		seen := make(map[notes.Position]bool)
		for _, note := range heard[place(i)] {
			position := notes.Position(note.GetPosition())
			if !seen[position] {
				got = append(got, position)
			}
			seen[position] = true
		}
		if !slices.Equal(got, log) {
			t.Errorf("at %v %d notes were heard of %d, %v after %v", place(i), len(got), len(log), got, slices.Collect(maps.Keys(seen)))
		}
	}
}
