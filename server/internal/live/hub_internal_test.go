package live

import (
	"testing"
	"time"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// Notes that come one after the other are written together, but what was delivered does not wait for the end of a backlog.
func TestHubFlushesDuringBacklog(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	hub := NewHub(Options{Store: store})
	if err := hub.pin(t.Context()); err != nil {
		t.Fatal(err)
	}
	begun, flushes, last := time.Now(), 0, time.Time{}
	for i := 1; flushes < 10; i++ {
		hub.announce(notes.Announcement{Changes: []notes.Change{{
			Sequence: notes.Sequence(i),
			Note:     notes.Note{Position: notes.Position(i), Encoded: []byte{0x0a, 0}},
		}}})
		hub.mu.Lock()
		flushedAt := hub.flushedAt
		hub.mu.Unlock()
		if flushedAt != last {
			flushes, last = flushes+1, flushedAt
		}
		if time.Since(begun) > time.Minute {
			t.Fatalf("flushed %d times in a minute", flushes)
		}
	}
	if passed := time.Since(begun); passed < 7*flushInterval { // The hub's goroutine flushes at the start, too.
		t.Errorf("flushed %d times in %v", flushes, passed)
	}
	hub.unpin()
	hub.Close()
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// The owners of followers share events, so that those in a queue are encoded.
func TestHubEncodesWhatItQueues(t *testing.T) {
	t.Parallel()
	hub := NewHub(Options{Store: memorystore.New()})
	if err := hub.pin(t.Context()); err != nil {
		t.Fatal(err)
	}
	busy := &follower{area: &area{rectangle: notes.World}}
	hub.join(busy)
	for _, count := range []int{1, 3} { // changes of an announcement
		changes := make([]notes.Change, count)
		for i := range changes {
			changes[i].Note.Encoded = []byte{0x0a, 0}
		}
		hub.mu.Lock()
		hub.deliver(0, mark{}, changes)
		hub.mu.Unlock()
	}
	if len(busy.queue) != 2 {
		t.Fatalf("%d deliveries are queued, want 2", len(busy.queue))
	}
	for _, delivery := range busy.queue {
		for _, event := range delivery.events.list {
			if event.alone.response == nil {
				t.Error("an event in a queue is not encoded")
			}
		}
	}
	hub.leave(busy)
	hub.unpin()
	hub.Close()
}

// What was delivered is not kept, nor is the room for many announcements.
func TestHubKeepsNoAnnouncements(t *testing.T) {
	t.Parallel()
	hub := NewHub(Options{Store: memorystore.New()})
	hub.stop() // Announcements are delivered below.
	hub.running.Wait()
	if err := hub.pin(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{10, maxSpare + 1, 10} {
		for range count {
			hub.inbox.put(notes.Announcement{Changes: make([]notes.Change, 1)})
		}
		hub.announceAll()
		if count <= maxSpare == (hub.spare == nil) {
			t.Errorf("after %d announcements, there is room for %d", count, cap(hub.spare))
		}
		for i, announcement := range hub.spare {
			if announcement.Changes != nil {
				t.Errorf("announcement %d of %d is kept", i, count)
			}
		}
	}
	hub.unpin()
	hub.Close()
}
