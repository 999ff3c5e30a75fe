package live

import (
	"sync"

	"example.com/routeguide/server/internal/notes"
)

// inbox is the bounded queue between the store, which must not wait, and the hub. It drops announcements that it has no room for: the hub
// finds the gap in the sequence numbers.
type inbox struct {
	ready chan struct{} // has an element while there are announcements

	mu            sync.Mutex // guards the rest
	announcements []notes.Announcement
	bytes         int
}

// put is the callback for [notes.Store].Subscribe.
func (i *inbox) put(announcement notes.Announcement) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.bytes > maxInbox {
		return
	}
	for j := range announcement.Changes {
		i.bytes += len(announcement.Changes[j].Note.Encoded) + changeOverhead
	}
	i.announcements = append(i.announcements, announcement)
	if len(i.announcements) == 1 {
		i.wake()
	}
}

// wake makes the hub look.
func (i *inbox) wake() {
	select {
	case i.ready <- struct{}{}:
	default:
	}
}

// take returns what has come. The next announcements are put into spare.
func (i *inbox) take(spare []notes.Announcement) []notes.Announcement {
	i.mu.Lock()
	defer i.mu.Unlock()
	announcements := i.announcements
	i.announcements, i.bytes = spare[:0], 0
	return announcements
}
