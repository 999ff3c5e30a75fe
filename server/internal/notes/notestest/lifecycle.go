package notestest

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

func restarts(t *testing.T, store notes.Store, reopen func() notes.Store) notes.Store {
	if reopen == nil {
		return store
	}
	here, elsewhere := notes.Location{Latitude: 1}, notes.Location{Longitude: 1}
	lineage := store.Lineage()
	last := notes.Position(0)
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprint(i))
		position := add(t, store, here, fmt.Sprint(i))
		if position <= last {
			t.Errorf("position %d comes after %d", position, last)
		}
		last = position
		forgotten := add(t, store, elsewhere, "a")
		if i%2 == 1 {
			if _, err := store.Forget(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		store = reopen()
		check(t, read(t, store, here, notes.Everything), want...)
		if store.Lineage() != lineage {
			t.Errorf("the lineage is %q after a restart, and was %q", store.Lineage(), lineage)
		}
		if again := add(t, store, elsewhere, "a"); again <= forgotten {
			t.Errorf("position %d comes after %d", again, forgotten)
		}
		check(t, read(t, store, here, notes.Span{Through: last, Newest: 1}), fmt.Sprint(i))
	}
	first := appended(t, store, here, identified("id", "text"))
	before := ends(t, store)
	replayed := make([][]notes.Change, len(before))
	for partition, end := range before {
		if end > 0 {
			replayed[partition], _ = replay(t, store, partition, end)
		}
	}
	store = reopen()
	if again := appended(t, store, here, identified("id", "text")); again.Position != first.Position || again.Time != first.Time {
		t.Errorf("after a restart the receipt is %v, and was %v", again, first)
	}
	last = first.Position
	for partition, end := range ends(t, store) {
		if end != before[partition] {
			t.Errorf("partition %d ends with %d after a restart, and ended with %d", partition, end, before[partition])
		}
		if again, err := replay(t, store, partition, end); end > 0 && (err != nil || fmt.Sprint(again) != fmt.Sprint(replayed[partition])) {
			t.Errorf("partition %d: after a restart %v is replayed, and was %v: %v", partition, again, replayed[partition], err)
		}
	}
	if _, err := store.Forget(t.Context(), math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	store = reopen()
	if again := add(t, store, here, "b"); again <= last {
		t.Errorf("position %d comes after %d", again, last)
	}
	check(t, read(t, store, here, notes.Everything), "b")
	return store
}

func closed(t *testing.T, store notes.Store) {
	add(t, store, notes.Location{}, "a")
	for range 2 {
		if err := store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("b")); !errors.Is(err, notes.ErrClosed) {
		t.Errorf("Append: got %v, want notes.ErrClosed", err)
	}
	var last error
	for _, err := range store.Range(t.Context(), notes.Location{}, notes.Everything) {
		last = err
	}
	if !errors.Is(last, notes.ErrClosed) {
		t.Errorf("Range: got %v, want notes.ErrClosed", last)
	}
	last = nil
	for _, err := range store.Locations(t.Context(), notes.World, nil) {
		last = err
	}
	if !errors.Is(last, notes.ErrClosed) {
		t.Errorf("Locations: got %v, want notes.ErrClosed", last)
	}
	if _, err := store.Ends(t.Context()); !errors.Is(err, notes.ErrClosed) {
		t.Errorf("Ends: got %v, want notes.ErrClosed", err)
	}
	last = nil
	for _, err := range store.Changes(t.Context(), 0, 1) {
		last = err
	}
	if !errors.Is(last, notes.ErrClosed) {
		t.Errorf("Changes: got %v, want notes.ErrClosed", last)
	}
	if _, err := store.Forget(t.Context(), 1); !errors.Is(err, notes.ErrClosed) {
		t.Errorf("Forget: got %v, want notes.ErrClosed", err)
	}
}
