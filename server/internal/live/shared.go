package live

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"

	"example.com/routeguide/server/internal/notes"
)

// sharedBytes is how much followers read of the store at once, in bytes, but for the last item: a slow one keeps it until it was sent.
const sharedBytes = 64 << 10

// changeBytes is the size of a change without its note, about.
const changeBytes = 64

// shared is reads of the store. Followers that catch up share them: all that ask for the same while the store is read for one get the next
// read, which begins afterwards, so that it finds whatever was kept before they asked.
type shared[Key comparable, Item any] struct {
	hub *Hub
	// open reads the items of a key in chunks.
	open func(ctx context.Context, key Key) iter.Seq2[[]Item, error]
	// keep returns a copy of an item that stays valid, and its size in bytes.
	keep func(item *Item) (Item, int)
	// after returns the key of what follows an item.
	after func(key Key, last *Item) Key

	mu    sync.Mutex // guards turns
	turns map[Key]*turn[Item]
}

// turn is the reads of a key. While one is in progress, next is the one after it, or nil if nobody waits for that.
type turn[Item any] struct {
	next *read[Item]
}

// read is the first items of a key. They are set before done is closed, and not changed any more.
type read[Item any] struct {
	done  chan struct{}
	items []Item
	more  bool // there may be further items
	err   error
	// panicked is the panic of the store, or empty. Each call that shares the read panics with it, as if it had read itself.
	panicked string
}

// all reads all items of a key, in chunks that stay valid, and must not be changed.
func (s *shared[Key, Item]) all(ctx context.Context, key Key) iter.Seq2[[]Item, error] {
	return func(yield func([]Item, error) bool) {
		for {
			read := s.first(ctx, key)
			if len(read.items) > 0 && !yield(read.items, nil) {
				return
			}
			if read.err != nil {
				yield(nil, read.err)
				return
			}
			if !read.more {
				return
			}
			key = s.after(key, &read.items[len(read.items)-1])
		}
	}
}

// first reads the first items of a key.
func (s *shared[Key, Item]) first(ctx context.Context, key Key) *read[Item] {
	joined := s.join(key)
	select {
	case <-joined.done:
		if joined.panicked != "" {
			panic(joined.panicked)
		}
		return joined
	case <-ctx.Done():
		return &read[Item]{err: context.Cause(ctx)}
	}
}

// join returns a read that has not begun.
func (s *shared[Key, Item]) join(key Key) *read[Item] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if turn, ok := s.turns[key]; ok {
		if turn.next == nil {
			turn.next = &read[Item]{done: make(chan struct{})}
		}
		return turn.next
	}
	if s.turns == nil {
		s.turns = make(map[Key]*turn[Item])
	}
	s.turns[key] = &turn[Item]{}
	first := &read[Item]{done: make(chan struct{})}
	s.hub.running.Go(func() { s.take(key, first) })
	return first
}

// take reads a key for those who wait, until nobody does.
func (s *shared[Key, Item]) take(key Key, read *read[Item]) {
	for read != nil {
		s.fill(key, read)
		s.mu.Lock()
		turn := s.turns[key]
		close(read.done)
		if read, turn.next = turn.next, nil; read == nil {
			delete(s.turns, key)
		}
		s.mu.Unlock()
	}
}

// fill reads the first items.
func (s *shared[Key, Item]) fill(key Key, read *read[Item]) {
	defer func() {
		if value := recover(); value != nil {
			read.panicked = fmt.Sprintf("%v\n\n%s", value, debug.Stack())
		}
	}()
	bytes := 0
	for chunk, err := range s.open(s.hub.ctx, key) {
		if err != nil {
			read.err = err
			return
		}
		for i := range chunk {
			if bytes >= sharedBytes {
				read.more = true
				return
			}
			item, size := s.keep(&chunk[i])
			read.items = append(read.items, item)
			bytes += size
		}
	}
}

// logKey is a span of a log; replayKey is the changes of a partition from a number on.
type (
	logKey struct {
		location notes.Location
		span     notes.Span
	}
	replayKey struct {
		partition int
		from      notes.Sequence
	}
)

// shareReads makes the reads of the store that followers share.
func (h *Hub) shareReads() {
	store := h.options.Store
	h.logs = shared[logKey, notes.Note]{
		hub: h,
		open: func(ctx context.Context, key logKey) iter.Seq2[[]notes.Note, error] {
			return store.Range(ctx, key.location, key.span)
		},
		keep: func(note *notes.Note) (notes.Note, int) {
			kept := *note
			kept.Encoded = bytes.Clone(note.Encoded)
			return kept, len(kept.Encoded) + changeBytes
		},
		after: func(key logKey, last *notes.Note) logKey {
			key.span.After = last.Position
			return key
		},
	}
	h.replays = shared[replayKey, notes.Change]{
		hub: h,
		open: func(ctx context.Context, key replayKey) iter.Seq2[[]notes.Change, error] {
			return store.Changes(ctx, key.partition, key.from)
		},
		keep: func(change *notes.Change) (notes.Change, int) { return *change, changeBytes },
		after: func(key replayKey, last *notes.Change) replayKey {
			key.from = last.Sequence + 1
			return key
		},
	}
	h.storeEnds = shared[struct{}, notes.Sequence]{
		hub: h,
		open: func(ctx context.Context, _ struct{}) iter.Seq2[[]notes.Sequence, error] {
			return func(yield func([]notes.Sequence, error) bool) { yield(store.Ends(ctx)) }
		},
		keep: func(end *notes.Sequence) (notes.Sequence, int) { return *end, 0 },
	}
}
