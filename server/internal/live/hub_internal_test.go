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
