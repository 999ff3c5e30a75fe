// Package feed passes the changes of a store to its subscribers.
package feed

import (
	"sync"
	"sync/atomic"

	"example.com/routeguide/server/internal/notes"
)

// A Feed is the list of the subscribers of a store. Its methods may be called concurrently. The zero value has no
// subscribers.
type Feed struct {
	active atomic.Bool // there are subscribers

	mu          sync.Mutex // guards subscribers; held during announcements
	subscribers map[*func(notes.Announcement)]struct{}
}

// Active returns whether there are subscribers.
func (f *Feed) Active() bool { return f.active.Load() }

// Announce calls the subscribers.
func (f *Feed) Announce(announcement notes.Announcement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for subscriber := range f.subscribers {
		(*subscriber)(announcement)
	}
}

// Subscribe implements [notes.Store].
func (f *Feed) Subscribe(announce func(notes.Announcement)) (unsubscribe func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subscribers == nil {
		f.subscribers = make(map[*func(notes.Announcement)]struct{})
	}
	f.subscribers[&announce] = struct{}{}
	f.active.Store(true)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subscribers, &announce)
		f.active.Store(len(f.subscribers) > 0)
	}
}
