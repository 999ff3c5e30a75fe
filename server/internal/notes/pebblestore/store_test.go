package pebblestore_test

import (
	"testing"

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
