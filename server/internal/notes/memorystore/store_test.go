package memorystore_test

import (
	"testing"

	"go.uber.org/goleak"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/notes/notestest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	t.Parallel()
	notestest.Run(t, func(*testing.T) (notes.Store, func() notes.Store) { return memorystore.New(), nil })
}
