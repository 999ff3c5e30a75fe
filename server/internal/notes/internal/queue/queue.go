// Package queue is a bounded queue between many producers, which append notes, and one consumer, which writes
// them in groups: producers do not wait for writes, and the consumer takes everything that was queued
// meanwhile at once.
package queue

import (
	"context"
	"sync"

	"example.com/routeguide/server/internal/notes"
)

// A Queue is a multi-producer, single-consumer queue, bounded in bytes. Put and Close may be called
// concurrently.
type Queue[T any] struct {
	// limit is the size, in bytes, from which on Put blocks.
	limit int

	mu      sync.Mutex // guards the rest
	items   []T
	bytes   int // size of items
	closed  bool
	ready   chan struct{} // has an element while Take must not block
	drained chan struct{} // closed, and replaced, by Take
}

// New returns an empty queue whose Put blocks while it holds limit bytes or more.
func New[T any](limit int) *Queue[T] {
	return &Queue[T]{limit: limit, ready: make(chan struct{}, 1), drained: make(chan struct{})}
}

// A Gate is admission control for Put: it returns the error for which items are refused or, while they are
// accepted, a channel that is closed when that ends.
type Gate func() (shut <-chan struct{}, err error)

// Open is a Gate that accepts everything.
func Open() (shut <-chan struct{}, err error) { return nil, nil }

// Put adds an item of size bytes. It blocks while the queue is full. If it returns an error, the item was not
// added: the error is that of the gate, the cause of ctx if that ends while Put blocks, or [notes.ErrClosed].
func (q *Queue[T]) Put(ctx context.Context, gate Gate, item T, size int) error {
	for {
		shut, err := gate()
		if err != nil {
			return err
		}
		drained, err := q.tryPut(item, size)
		if err != nil || drained == nil {
			return err
		}
		select {
		case <-drained:
		case <-shut:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// tryPut adds an item. If the queue is full, it returns a channel that is closed at the next Take.
func (q *Queue[T]) tryPut(item T, size int) (drained <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, notes.ErrClosed
	}
	if q.bytes >= q.limit {
		return q.drained, nil
	}
	q.items = append(q.items, item)
	q.bytes += size
	q.wake()
	return nil, nil
}

// wake unblocks Take. The caller holds q.mu.
func (q *Queue[T]) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Take blocks until there are items and returns them all. Its second result is false once the queue is
// closed: there will be no more items. The queue reuses buffer, which must be empty, for the next items.
func (q *Queue[T]) Take(buffer []T) (items []T, open bool) {
	<-q.ready
	q.mu.Lock()
	defer q.mu.Unlock()
	items, q.items, q.bytes = q.items, buffer, 0
	close(q.drained)
	q.drained = make(chan struct{})
	return items, !q.closed
}

// TryTake returns the items that are there now, and does not wait.
func (q *Queue[T]) TryTake() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items, q.bytes = nil, 0
	close(q.drained)
	q.drained = make(chan struct{})
	return items
}

// Close makes Put fail, and Take return the remaining items.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
}
