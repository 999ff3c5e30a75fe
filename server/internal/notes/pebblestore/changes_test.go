package pebblestore_test

import (
	"errors"
	"testing"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// end returns the number of the last change.
func end(t *testing.T, store notes.Store) notes.Sequence {
	t.Helper()
	ends, err := store.Ends(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ends[0]
}

// replay returns the number of changes that are replayed from a number on. It fails if they are not dense, or if a note
// is elsewhere.
func replay(t *testing.T, store notes.Store, from notes.Sequence) (count int, err error) {
	t.Helper()
	for chunk, err := range store.Changes(t.Context(), 0, from) {
		if err != nil {
			return count, err
		}
		for _, change := range chunk {
			if want := from + notes.Sequence(count); change.Sequence != want || change.Note.Position != notes.Position(want) {
				t.Fatalf("change %d of position %d comes where %d is due", change.Sequence, change.Note.Position, want)
			}
			count++
		}
	}
	return count, nil
}

// The last changes are replayed, also those of the largest groups, which older changes share a record with; older ones
// than that are not.
func TestChangesReplaysTheLastOnes(t *testing.T) {
	t.Parallel()
	const replayed = 100
	turnstile := newTurnstile()
	options := pebblestore.Options{Dir: t.TempDir(), OnCommit: turnstile.onCommit}.WithEpochNotes(50).WithReplayedChanges(replayed)
	store := open(t, options)
	large := make([]notes.Note, pebblestore.GroupNotes)
	for i := range large {
		large[i] = notes.Note{Time: 1, Encoded: []byte("a")}
	}
	check := func() {
		t.Helper()
		end := end(t, store)
		for _, from := range []notes.Sequence{end - replayed + 1, end - replayed/2, end, end + 1} {
			if count, err := replay(t, store, from); err != nil || count != int(end+1-from) {
				t.Errorf("%d changes are replayed from %d to %d, %v", count, from, end, err)
			}
		}
	}
	for range 3 {
		for _, outcome := range turnstile.group(t, store, place(0), large...) {
			if outcome.err != nil {
				t.Fatal(outcome.err)
			}
		}
		check()
		for i := range 3 {
			keep(t, store, place(i), 1)
			check()
		}
	}
	for store = range alsoReopened(t, store, options) {
		for _, from := range []notes.Sequence{1, 2, pebblestore.GroupNotes} {
			if count, err := replay(t, store, from); !errors.Is(err, notes.ErrOutOfRange) || count > 0 {
				t.Errorf("%d changes are replayed from %d on, %v, want notes.ErrOutOfRange", count, from, err)
			}
		}
		check()
	}
}

// A change that is missing ends the replay with an error: nothing is left out.
func TestChangesErrOutOfRangeAtGap(t *testing.T) {
	t.Parallel()
	store := open(t, pebblestore.Options{Dir: t.TempDir()})
	defer shut(t, store)
	for i := range 9 {
		keep(t, store, place(i), 1)
	}
	if err := store.DB().Delete(pebblestore.ChangeKey(5), nil); err != nil {
		t.Fatal(err)
	}
	for from, want := range map[notes.Sequence]int{1: 4, 4: 1, 5: 0} {
		if count, err := replay(t, store, from); !errors.Is(err, notes.ErrOutOfRange) || count != want {
			t.Errorf("from %d on: %d changes, %v, want %d and notes.ErrOutOfRange", from, count, err, want)
		}
	}
	if count, err := replay(t, store, 6); err != nil || count != 4 {
		t.Errorf("after the gap: %d changes, %v, want 4", count, err)
	}
}
