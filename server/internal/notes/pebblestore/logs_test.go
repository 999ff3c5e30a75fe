package pebblestore_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

// logs are all notes of a store.
type logs map[notes.Location][]notes.Note

// check fails unless the store has exactly these notes.
func (want logs) check(t *testing.T, store notes.Store) {
	t.Helper()
	got := make(logs)
	for location, err := range store.Locations(t.Context(), notes.World, nil) {
		if err != nil {
			t.Fatal(err)
		}
		for chunk, err := range store.Range(t.Context(), location, notes.Everything) {
			if err != nil {
				t.Fatal(err)
			}
			for _, note := range chunk {
				note.Encoded = bytes.Clone(note.Encoded)
				got[location] = append(got[location], note)
			}
		}
	}
	want.compare(t, got)
}

func (want logs) compare(t *testing.T, got logs) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("there are %d locations, want %d", len(got), len(want))
	}
	for location, log := range want {
		if !slices.EqualFunc(got[location], log, equalNotes) {
			t.Errorf("the log of %v, and perhaps others, has %d notes, and is not the one that was written, with %d notes", location, len(got[location]), len(log))
			return
		}
	}
}

func equalNotes(a, b notes.Note) bool {
	return a.Position == b.Position && a.Time == b.Time && a.ID == b.ID && bytes.Equal(a.Encoded, b.Encoded)
}

// append appends a note to the store and to the logs. Its position must be greater than another one.
func (want logs) append(t *testing.T, store notes.Store, location notes.Location, after notes.Position) {
	t.Helper()
	note := notes.Note{Time: 1_900_000_000_000_000_000, Encoded: fmt.Appendf(nil, "appended after %d", len(want[location]))}
	receipt, err := notes.Append(t.Context(), store, location, note)
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Position <= after {
		t.Errorf("a note gets position %d, after %d was assigned", receipt.Position, after)
	}
	note.Position = receipt.Position
	want[location] = append(want[location], note)
}

func (want logs) clone() logs {
	clone := maps.Clone(want)
	for location, log := range clone {
		clone[location] = slices.Clip(log)
	}
	return clone
}
