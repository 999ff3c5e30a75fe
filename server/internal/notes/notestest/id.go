package notestest

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

func alone(t *testing.T, store notes.Store) {
	here, elsewhere := notes.Location{Latitude: 5}, notes.Location{Longitude: 5}
	for i, test := range []struct {
		location notes.Location
		first    bool
	}{{here, true}, {here, false}, {elsewhere, true}, {here, false}, {elsewhere, false}} {
		if receipt := appended(t, store, test.location, draft("a")); receipt.Alone && !test.first {
			t.Errorf("note %d is said to be alone", i)
		}
	}
	// Many notes of one location at once: one of them is the first.
	for _, number := range appendAll(t, store, times(100, notes.Location{Latitude: 6}), short).alone {
		if number != 0 {
			t.Errorf("note %d of a hundred is said to be alone", number)
		}
	}
}

// identified returns a note with an ID that was received now.
func identified(id, text string) notes.Note {
	return notes.Note{Time: notes.Now(), ID: id, Encoded: []byte(text)}
}

func keptOnce(t *testing.T, store notes.Store) {
	here, elsewhere := notes.Location{Latitude: 5}, notes.Location{Longitude: 5}
	longest := strings.Repeat("\x00\xff", notes.MaxID/2)
	var want []string
	for _, id := range []string{"a", "b", "a\x00", longest} {
		note := identified(id, "text of "+id)
		first := appended(t, store, here, note)
		want = append(want, string(note.Encoded))
		if first.Time != note.Time {
			t.Errorf("the note of time %d got a receipt of %d", note.Time, first.Time)
		}
		again := appended(t, store, here, identified(id, "text of "+id))
		if again.Position != first.Position || again.Time != first.Time {
			t.Errorf("id %q: the receipt is %v, and was %v", id, again, first)
		}
		if _, err := notes.Append(t.Context(), store, here, identified(id, "another text")); !errors.Is(err, notes.ErrIDTaken) {
			t.Errorf("id %q with another text: got %v, want notes.ErrIDTaken", id, err)
		}
		if other := appended(t, store, elsewhere, identified(id, "another text")); other.Position == 0 {
			t.Errorf("id %q at another location: the position is 0", id)
		}
	}
	log := read(t, store, here, notes.Everything)
	if len(log) != len(want) || log[1].ID != "b" || log[3].ID != longest || string(log[3].Encoded) != want[3] {
		t.Errorf("the log is %v, want the notes %q", log, want)
	}
	// An ID outlives its note.
	if _, err := store.Forget(t.Context(), notes.Now()); err != nil {
		t.Fatal(err)
	}
	if again := appended(t, store, here, identified("a", "text of a")); again.Position != log[0].Position || again.Time != log[0].Time {
		t.Errorf("the receipt is %v, and the forgotten note was %v", again, log[0])
	}
	if rest := read(t, store, here, notes.Everything); len(rest) != 0 {
		t.Errorf("a forgotten note with an id is kept again: %v", rest)
	}
}

func keptOnceConcurrently(t *testing.T, store notes.Store) {
	const writers, ids = 8, 50
	here := notes.Location{Latitude: 1, Longitude: -1}
	var writing sync.WaitGroup
	positions := make([][ids]notes.Position, writers)
	for writer := range writers {
		writing.Go(func() {
			for i := range ids {
				id := strings.Repeat("x", i+1)
				receipt, err := notes.Append(t.Context(), store, here, identified(id, id))
				if err != nil {
					t.Error(err)
				}
				positions[writer][i] = receipt.Position
			}
		})
	}
	writing.Wait()
	for writer := range writers {
		if positions[writer] != positions[0] {
			t.Errorf("writer %d got the positions %v, and the first one %v", writer, positions[writer], positions[0])
		}
	}
	// The same in one group.
	group := appendAll(t, store, times(ids, here), func(int) notes.Note { return identified("group", "one text") }).positions
	for number, position := range group {
		if position != group[0] {
			t.Errorf("note %d got position %d, and the first one %d", number, position, group[0])
		}
	}
	if log := read(t, store, here, notes.Everything); len(log) != ids+1 {
		t.Errorf("%d notes are kept, want %d", len(log), ids+1)
	}
}
