// Package notestest is the conformance test suite of [notes.Store]. Every implementation runs it.
package notestest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

// An Opener opens an empty store for a test. Reopen closes the store and opens it again with its notes; it is
// nil for a store that is not durable.
type Opener func(t *testing.T) (store notes.Store, reopen func() notes.Store)

// Reopening returns a store that open opens, and a function that closes it and opens it again.
func Reopening(t *testing.T, open func() notes.Store) (store notes.Store, reopen func() notes.Store) {
	t.Helper()
	store = open()
	return store, func() notes.Store {
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		store = open()
		return store
	}
}

// Run tests the stores that open returns against the contract of [notes.Store]. It closes them.
func Run(t *testing.T, open Opener) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, notes.Store){
		"Range of an unknown location is empty":     emptyLog,
		"Range is in append order":                  order,
		"Range excludes After and includes Through": bounds,
		"Span.Newest": newest,
		"concurrent Append has one order per location": oneOrder,
		"Range of a long log is chunked":               longLog,
		"Range of huge notes":                          hugeNote,
		"Range can be left early":                      leftEarly,
		"Range ends with its context":                  cancelled,
		"Receipt.Alone of first notes only":            alone,
		"ID is kept once":                              keptOnce,
		"ID is kept once by concurrent appends":        keptOnceConcurrently,
		"Locations lists each location once":           locations,
		"Locations in a rectangle":                     rectangles,
		"Locations ends with its context":              locationsCancelled,
		"Changes replays every note":                   changes,
		"Changes is ErrOutOfRange beyond the end":      changesOutOfRange,
		"Subscribe announces every note in order":      announcements,
		"Subscribe ends":                               unsubscribed,
		"Forget removes the old prefix of each log":    forget,
		"Forget with notes dated in the future":        forgetFuture,
		"Forget with long logs dated in the future":    forgetLongFuture,
		"Position is never reused":                     positions,
		"Forget during Append and Range":               forgetMeanwhile,
		"ErrClosed after Close":                        closed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, _ := open(t)
			t.Cleanup(func() {
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, store)
		})
	}
	t.Run("Lineage is of one store", func(t *testing.T) {
		t.Parallel()
		first, _ := open(t)
		second, _ := open(t)
		if first.Lineage() == "" || first.Lineage() == second.Lineage() {
			t.Errorf("two stores have the lineages %q and %q", first.Lineage(), second.Lineage())
		}
		if err := errors.Join(first.Close(), second.Close()); err != nil {
			t.Error(err)
		}
	})
	for name, test := range map[string]func(*testing.T, notes.Store, func() notes.Store) notes.Store{
		"notes and positions survive a restart": restarts,
		"a store agrees with a model":           agrees,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, reopen := open(t)
			store = test(t, store, reopen)
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// read returns the notes of a range.
func read(t *testing.T, store notes.Store, location notes.Location, span notes.Span) []notes.Note {
	t.Helper()
	var log []notes.Note
	for chunk, err := range store.Range(t.Context(), location, span) {
		if err != nil {
			t.Fatal(err)
		}
		if len(chunk) == 0 {
			t.Error("a chunk without notes")
		}
		for _, note := range chunk {
			note.Encoded = bytes.Clone(note.Encoded) // A chunk is valid until the next one only.
			log = append(log, note)
		}
	}
	return log
}

// add appends a note and returns its position. The time of the note is the length of its text.
func add(t *testing.T, store notes.Store, location notes.Location, text string) notes.Position {
	t.Helper()
	return appended(t, store, location, draft(text)).Position
}

// appended appends a note and returns its receipt.
func appended(t *testing.T, store notes.Store, location notes.Location, note notes.Note) notes.Receipt {
	t.Helper()
	receipt, err := notes.Append(t.Context(), store, location, note)
	if err != nil {
		t.Fatal(err)
	}
	return receipt
}

func draft(text string) notes.Note {
	return notes.Note{Time: int64(len(text)), Encoded: []byte(text)}
}

func check(t *testing.T, log []notes.Note, want ...string) {
	t.Helper()
	var got []string
	for i, note := range log {
		got = append(got, string(note.Encoded))
		if note.Time != int64(len(note.Encoded)) {
			t.Errorf("the time of %q is %d", note.Encoded, note.Time)
		}
		if i > 0 && note.Position <= log[i-1].Position {
			t.Errorf("position %d comes after %d", note.Position, log[i-1].Position)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the log is %q, want %q", got, want)
	}
}
