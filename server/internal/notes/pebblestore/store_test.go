package pebblestore_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/notestest"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

func open(t *testing.T, options pebblestore.Options) *pebblestore.Store {
	t.Helper()
	options.Fatal = func(err error) { t.Error(err) }
	store, err := pebblestore.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestStore(t *testing.T) {
	t.Parallel()
	notestest.Run(t, func(t *testing.T) (notes.Store, func() notes.Store) {
		options := pebblestore.Options{Dir: t.TempDir()}
		return notestest.Reopening(t, func() notes.Store { return open(t, options) })
	})
}

// With epochs of a few notes, almost every log is in several of them.
func TestStoreWithSmallEpochs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	for _, epochNotes := range []int{50} {
		t.Run(fmt.Sprint(epochNotes), func(t *testing.T) {
			t.Parallel()
			notestest.Run(t, func(t *testing.T) (notes.Store, func() notes.Store) {
				options := pebblestore.Options{Dir: t.TempDir()}.WithEpochNotes(epochNotes)
				return notestest.Reopening(t, func() notes.Store { return open(t, options) })
			})
		})
	}
}

// The values of a log are next to their keys in a table, and not at its end.
func TestStoreKeepsValuesWithKeys(t *testing.T) {
	t.Parallel()
	store := open(t, pebblestore.Options{Dir: t.TempDir()})
	defer store.Close()
	const count = 10
	for range count {
		if _, err := notes.Append(t.Context(), store, notes.Location{}, notes.Note{Encoded: []byte("note")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.DB().Flush(); err != nil {
		t.Fatal(err)
	}
	levels, err := store.DB().SSTables(pebble.WithProperties())
	if err != nil {
		t.Fatal(err)
	}
	entries := uint64(0)
	for _, table := range slices.Concat(levels...) {
		entries += table.Properties.NumEntries
		if apart := table.Properties.NumValuesInValueBlocks; apart > 0 {
			t.Errorf("a table has %d values apart from their keys", apart)
		}
	}
	if entries < count {
		t.Errorf("the tables have %d entries, fewer than notes", entries)
	}
}
