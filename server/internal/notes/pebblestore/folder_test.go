package pebblestore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Error(err)
	}
}

// errorsOf returns the errors of all methods of a store, by name.
func errorsOf(t *testing.T, store notes.Store, locations ...notes.Location) map[string]error {
	t.Helper()
	found := make(map[string]error)
	for _, location := range locations {
		var last error
		for _, err := range store.Range(t.Context(), location, notes.Everything) {
			last = err
		}
		found[fmt.Sprint("Range at ", location)] = last
	}
	for _, err := range store.Locations(t.Context(), notes.World, nil) {
		found["Locations"] = err
	}
	_, found["Forget"] = store.Forget(t.Context(), 0)
	_, found["Append"] = notes.Append(t.Context(), store, notes.Location{}, notes.Note{Time: 1, Encoded: []byte("refused")})
	return found
}

func TestStoreErrUnavailableWhileFolderIsMissing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "notes")
	health := make(chan error, 10)
	store := open(t, pebblestore.Options{Dir: dir, Health: func(err error) { health <- err }})
	short, long := notes.Location{}, notes.Location{Latitude: 1} // one in the log cache, one read by the engine
	for location, text := range map[notes.Location]string{short: "a", long: strings.Repeat("x", 10<<10)} {
		if _, err := notes.Append(t.Context(), store, location, notes.Note{Time: 1, Encoded: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	rename(t, dir, dir+".away")
	if err := <-health; !errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("health is %v, want notes.ErrUnavailable", err)
	}
	for what, err := range errorsOf(t, store, short, long) {
		if !errors.Is(err, notes.ErrUnavailable) {
			t.Errorf("%s: got %v, want notes.ErrUnavailable", what, err)
		}
	}
	rename(t, dir+".away", dir)
	if err := <-health; err != nil {
		t.Errorf("health is %v with the folder back", err)
	}
	for what, err := range errorsOf(t, store, short, long) {
		if err != nil {
			t.Errorf("%s: got %v with the folder back", what, err)
		}
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestAppendErrUnknownIfFolderMovesDuringSync(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "notes")
	var armed atomic.Bool
	disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		syncing := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
		if syncing && strings.HasSuffix(op.Path, ".log") && armed.CompareAndSwap(true, false) {
			rename(t, dir, dir+".away")
		}
		return nil
	}))
	health := make(chan error, 10)
	store := open(t, pebblestore.Options{Dir: dir, FS: disk, Health: func(err error) { health <- err }})
	announced := make(chan notes.Announcement, 10)
	defer store.Subscribe(func(announcement notes.Announcement) { announced <- announcement })()
	armed.Store(true)
	if _, err := notes.Append(t.Context(), store, notes.Location{}, notes.Note{Time: 1, Encoded: []byte("a")}); !errors.Is(err, notes.ErrUnknown) {
		t.Errorf("got %v, want notes.ErrUnknown", err)
	}
	if err := <-health; !errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("health is %v, want notes.ErrUnavailable", err)
	}
	rename(t, dir+".away", dir)
	if err := <-health; err != nil {
		t.Errorf("health is %v with the folder back", err)
	}
	checkLength(t, store, 1)
	// Subscribers are told that they have missed the note.
	for i, missed := range []bool{true, false} {
		position := keep(t, store, notes.Location{}, 1).Position
		if got := <-announced; got.Missed != missed || len(got.Changes) != 1 || got.Changes[0].Note.Position != position {
			t.Errorf("announcement %d is %v, want that of %d", i, got, position)
		}
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// The folder moves just before the engine creates a file in it: the engine waits, and no note is lost.
func TestRetryFSWaitsForMissingFolder(t *testing.T) {
	t.Parallel()
	for _, file := range []string{".log", ".sst"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "notes")
			var armed atomic.Bool
			disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
				making := op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite
				if making && strings.HasSuffix(op.Path, file) && armed.CompareAndSwap(true, false) {
					rename(t, dir, dir+".away")
				}
				return nil
			}))
			health := make(chan error, 10)
			store := open(t, pebblestore.Options{Dir: dir, FS: disk, Health: func(err error) { health <- err }})
			armed.Store(true)
			fates := make(fates)
			var writing sync.WaitGroup
			done := make(chan struct{})
			writing.Go(func() {
				padding := strings.Repeat("x", 256<<10)
				for i := 0; ; i++ {
					note := notes.Note{Time: 1, Encoded: []byte(text(0, i) + padding)}
					_, err := notes.Append(t.Context(), store, notes.Location{}, note)
					fates[text(0, i)] = err
					if err != nil {
						return
					}
					select {
					case <-done:
						return
					default:
					}
				}
			})
			if err := <-health; !errors.Is(err, notes.ErrUnavailable) {
				t.Errorf("health is %v, want notes.ErrUnavailable", err)
			}
			rename(t, dir+".away", dir)
			if err := <-health; err != nil {
				t.Errorf("health is %v with the folder back", err)
			}
			close(done)
			writing.Wait()
			fates.check(t, store)
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			store = open(t, pebblestore.Options{Dir: dir})
			fates.check(t, store)
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// fates are the results of appends, by the start of the note's text.
type fates map[string]error

// check fails unless the log has exactly the notes that were kept, or may have been.
func (f fates) check(t *testing.T, store notes.Store) {
	t.Helper()
	there := make(map[string]int)
	for chunk, err := range store.Range(t.Context(), notes.Location{}, notes.Everything) {
		if err != nil {
			t.Fatal(err)
		}
		for _, note := range chunk {
			there[string(note.Encoded[:len(text(0, 0))])]++
		}
	}
	kept := 0
	for text, err := range f {
		switch count := there[text]; {
		case err == nil && count != 1:
			t.Errorf("%s was kept, and is there %d times", text, count)
		case err != nil && !errors.Is(err, notes.ErrUnknown) && !errors.Is(err, notes.ErrUnavailable):
			t.Errorf("%s: got %v", text, err)
		case err != nil && !errors.Is(err, notes.ErrUnknown) && count != 0:
			t.Errorf("%s was not kept (%v), and is there", text, err)
		case err == nil:
			kept++
		}
	}
	if kept == 0 {
		t.Error("no note was kept")
	}
}
