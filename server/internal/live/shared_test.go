package live_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// remote is a store whose replies take a while, and which counts reads.
type remote struct {
	lossy

	losing atomic.Bool
	reads  atomic.Int64
}

func newRemote() *remote {
	r := &remote{}
	r.lossy = lossy{memorystore.New(), r.losing.Load}
	return r
}

// leaveUnheard keeps a note whose announcement is lost.
func (r *remote) leaveUnheard(t *testing.T, text string) {
	t.Helper()
	r.losing.Store(true)
	leave(t, r, here, text)
	r.losing.Store(false)
}

// reply returns what a read returns, after a while.
func reply[Item any](r *remote, chunks iter.Seq2[[]Item, error]) iter.Seq2[[]Item, error] {
	return func(yield func([]Item, error) bool) {
		r.reads.Add(1)
		var items []Item
		var failed error
		for chunk, err := range chunks {
			items, failed = append(items, chunk...), err
		}
		time.Sleep(readTime)
		if len(items) > 0 && !yield(items, nil) {
			return
		}
		if failed != nil {
			yield(nil, failed)
		}
	}
}

const readTime = time.Millisecond

func (r *remote) Range(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		for chunk, err := range reply(r, r.Store.Range(ctx, location, span)) {
			for i := range chunk {
				chunk[i].Encoded = bytes.Clone(chunk[i].Encoded)
			}
			more := yield(chunk, err)
			for i := range chunk {
				clear(chunk[i].Encoded) // The chunk is not valid any more.
			}
			if !more {
				return
			}
		}
	}
}

func (r *remote) Changes(ctx context.Context, partition int, from notes.Sequence) iter.Seq2[[]notes.Change, error] {
	return reply(r, r.Store.Changes(ctx, partition, from))
}

// Followers that have missed the same notes read them together, and hear all that was kept before they asked.
func TestFollowersShareReads(t *testing.T) {
	t.Parallel()
	for name, filter := range map[string]live.Filter{"location": at(here), "rectangle": world} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const followers, missed = 100, 1200 // notes: several reads
				store := newRemote()
				hub := live.NewHub(live.Options{Store: store})
				defer hub.Close()
				streams, ends := make([]*stream, followers), make([]func() error, followers)
				for i := range streams {
					streams[i] = newStream()
					ends[i] = follow(t, hub, live.Request{Filter: filter}, streams[i])
					streams[i].waitCurrent()
				}
				var want []string
				next := func() string {
					want = append(want, fmt.Sprintf("%05d%0100d", len(want), 0))
					return want[len(want)-1]
				}
				for range missed {
					store.leaveUnheard(t, next())
				}
				store.reads.Store(0)
				leave(t, store, here, next()) // It is announced, and shows the gap.
				time.Sleep(readTime / 2)      // The first read is in progress, and others wait for the second.
				leave(t, store, here, next())
				for _, stream := range streams {
					stream.waitFor(len(want))
					stream.check(t, want...)
				}
				reads := store.reads.Load()
				t.Logf("%d followers read the store %d times", followers, reads)
				if reads > followers || reads < 10 {
					t.Error("want a few, each of bounded size")
				}
				for _, end := range ends {
					_ = end()
				}
				_ = store.Close()
			})
		})
	}
}

// A read that is in progress may have missed what was kept before another follower asked: that one gets the next read.
func TestSharedReadBeginsAfterwards(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote()
		hub := live.NewHub(live.Options{Store: store})
		defer hub.Close()
		first, second := newStream(), newStream()
		endFirst := follow(t, hub, live.Request{Filter: at(here)}, first)
		first.waitCurrent()
		leave(t, store, here, "heard")
		first.waitFor(1)
		synctest.Wait()
		cursor := first.cursor
		store.leaveUnheard(t, "lost")
		leave(t, store, here, "shows the gap")
		synctest.Wait() // The first follower waits for the store's reply.
		leave(t, store, here, "kept after that")
		synctest.Wait()
		endSecond := follow(t, hub, live.Request{Filter: at(here), Cursor: cursor}, second)
		second.waitFor(3)
		second.check(t, "lost", "shows the gap", "kept after that")
		first.waitFor(4)
		first.check(t, "heard", "lost", "shows the gap", "kept after that")
		_ = endFirst()
		_ = endSecond()
		_ = store.Close()
	})
}

// broken is a store whose reads panic for a while.
type broken struct {
	lossy
}

func (b broken) Range(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	if b.lose() {
		panic("a bug in the store")
	}
	return b.Store.Range(ctx, location, span)
}

// A panic of the store ends the calls that share the read, and not the server.
func TestSharedReadPanics(t *testing.T) {
	t.Parallel()
	var lose atomic.Bool
	store := broken{lossy{memorystore.New(), lose.Load}}
	hub := newHub(t, live.Options{Store: store})
	stream, panicked := newStream(), make(chan any)
	go func() {
		defer func() { panicked <- recover() }()
		_ = hub.FollowNotes(t.Context(), live.Request{Filter: at(here)}, stream)
	}()
	stream.waitCurrent()
	lose.Store(true)
	leave(t, store, here, "not announced")
	if got := fmt.Sprint(<-panicked); !strings.Contains(got, "a bug in the store") || !strings.Contains(got, "Range") {
		t.Errorf("the call ends with the panic %q, want that of the store with its stack", got)
	}
	lose.Store(false)
	other := newStream()
	follow(t, hub, live.Request{Filter: at(here), Newest: 1}, other)
	other.waitFor(1)
	other.check(t, "not announced")
}

// A follower that ends does not wait for the store, nor do others that share its read lose it.
func TestSharedReadOutlivesCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newRemote()
		hub := live.NewHub(live.Options{Store: store})
		defer hub.Close()
		leaving, staying := newStream(), newStream()
		endLeaving := follow(t, hub, live.Request{Filter: at(here)}, leaving)
		endStaying := follow(t, hub, live.Request{Filter: at(here)}, staying)
		leaving.waitCurrent()
		staying.waitCurrent()
		store.leaveUnheard(t, "lost")
		leave(t, store, here, "announced")
		synctest.Wait() // for the store
		ended := time.Now()
		if err := endLeaving(); err == nil || time.Since(ended) > 0 {
			t.Errorf("the call ends after %v, with %v", time.Since(ended), err)
		}
		staying.waitFor(2)
		staying.check(t, "lost", "announced")
		_ = endStaying()
		_ = store.Close()
	})
}
