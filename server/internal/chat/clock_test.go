package chat_test

import (
	"fmt"
	"testing"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// The wall clock is set back between two notes, of one chat and of two.
func TestNoteTimesAreMonotonic(t *testing.T) {
	t.Parallel()
	wall := []int64{100, 50, 200, 150, 201}
	late := &late{Store: memorystore.New(), failFrom: 100}
	server := chat.NewServer(chat.Options{Store: late, Now: func() int64 {
		now := wall[0]
		wall = wall[1:]
		return now
	}})
	for _, count := range []int{3, 2} {
		session := &session{late: late, stop: make(chan struct{})}
		for range count {
			session.sent = append(session.sent, &routeguide.RouteNote{Location: &routeguide.Point{}})
		}
		if _, err := server.Serve(t.Context(), session, nil); err != nil {
			t.Fatal(err)
		}
	}
	late.settling.Wait()
	var times []int64
	for chunk, err := range late.Range(t.Context(), notes.Location{}, notes.Everything) {
		if err != nil {
			t.Fatal(err)
		}
		for _, note := range chunk {
			times = append(times, note.Time)
		}
	}
	if got, want := fmt.Sprint(times), "[100 100 200 200 201]"; got != want {
		t.Errorf("the notes have the times %s, want %s", got, want)
	}
}
