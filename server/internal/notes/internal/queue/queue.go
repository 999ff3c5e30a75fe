// Package inbox is the queue between the many who append notes and the one goroutine that writes
// them: whoever puts something in does not wait for the writing, and whoever writes gets all that
// has come meanwhile at once.
package queue

import (
	"context"
	"sync"

	"example.com/routeguide/server/internal/notes"
)

// An Queue holds items until its one reader takes them. Put and Close may be called concurrently.
type Queue[T any] struct {
	// limit is how many bytes may wait before Put waits too.
	limit int

	mu     sync.Mutex // guards the rest
	items  []T
	bytes  int
	closed bool
	more   chan struct{} // has an element if there is something to take
	fewer  chan struct{} // is closed, and replaced, when the items were taken
}

// New returns an empty inbox, in which Put waits while there are items of limit bytes or more.
func New[T any](limit int) *Queue[T] {
	return &Queue[T]{limit: limit, more: make(chan struct{}, 1), fewer: make(chan struct{})}
}

// A Gate returns why nothing may be put in, or a channel that is closed when nothing may any more.
type Gate func() (shut <-chan struct{}, err error)

// Open is a gate that is always open.
func Open() (shut <-chan struct{}, err error) { return nil, nil }

// Put adds an item of a size. If it returns an error, the item is not taken: that of the gate, the
// cause of ctx if that ends while Put waits, or [notes.ErrClosed].
func (i *Queue[T]) Put(ctx context.Context, gate Gate, item T, size int) error {
	for {
		shut, err := gate()
		if err != nil {
			return err
		}
		fewer, err := i.tryPut(item, size)
		if err != nil || fewer == nil {
			return err
		}
		select {
		case <-fewer:
		case <-shut:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryPut returns a channel to wait for if there is no place.
func (i *Queue[T]) tryPut(item T, size int) (fewer <-chan struct{}, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil, notes.ErrClosed
	}
	if i.bytes >= i.limit {
		return i.fewer, nil
	}
	i.items = append(i.items, item)
	i.bytes += size
	i.wake()
	return nil, nil
}

// wake tells the reader that there is something to take. The caller holds i.mu.
func (i *Queue[T]) wake() {
	select {
	case i.more <- struct{}{}:
	default:
	}
}

// Take waits for items and returns all there are. Its second result is false if there will be no
// more. The spare slice, which must be empty, is used for the next items.
func (i *Queue[T]) Take(spare []T) (items []T, open bool) {
	<-i.more
	i.mu.Lock()
	defer i.mu.Unlock()
	items, i.items, i.bytes = i.items, spare, 0
	close(i.fewer)
	i.fewer = make(chan struct{})
	return items, !i.closed
}

// Close makes Put refuse, and Take return what is left.
func (i *Queue[T]) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	i.wake()
}
