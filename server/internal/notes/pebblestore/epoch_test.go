package pebblestore_test

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

func shut(t *testing.T, store notes.Store) {
	t.Helper()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// alsoReopened yields a store, and then the store opened again. It closes both.
func alsoReopened(t *testing.T, store *pebblestore.Store, options pebblestore.Options) iter.Seq[*pebblestore.Store] {
	t.Helper()
	return func(yield func(*pebblestore.Store) bool) {
		defer func() { shut(t, store) }()
		if !yield(store) {
			return
		}
		shut(t, store)
		store = open(t, options)
		yield(store)
	}
}

// place returns the nth of many locations.
func place(n int) notes.Location {
	return notes.Location{Latitude: int32(n) * 7919, Longitude: int32(n) * -104_729}
}

// keep appends a note whose text is its time.
func keep(t *testing.T, store notes.Store, location notes.Location, at int64) notes.Receipt {
	t.Helper()
	receipt, err := notes.Append(t.Context(), store, location, notes.Note{Time: at, Encoded: fmt.Append(nil, at)})
	if err != nil {
		t.Fatal(err)
	}
	return receipt
}

// spanOf returns a span of a log. It fails if a chunk is too large.
func spanOf(t *testing.T, store notes.Store, location notes.Location, span notes.Span) (log []notes.Note) {
	t.Helper()
	for chunk, err := range store.Range(t.Context(), location, span) {
		if err != nil {
			t.Fatal(err)
		}
		if len(chunk) > 512 {
			t.Errorf("a chunk has %d notes", len(chunk))
		}
		for _, note := range chunk {
			note.Encoded = bytes.Clone(note.Encoded)
			log = append(log, note)
		}
	}
	return log
}

// timesOf returns the times of the notes of a log.
func timesOf(t *testing.T, store notes.Store, location notes.Location) (times []int64) {
	t.Helper()
	for _, note := range spanOf(t, store, location, notes.Everything) {
		times = append(times, note.Time)
	}
	return times
}

// countLocations returns the number of locations in the world.
func countLocations(t *testing.T, store notes.Store) (count int) {
	t.Helper()
	for _, err := range store.Locations(t.Context(), notes.World, nil) {
		if err != nil {
			t.Fatal(err)
		}
		count++
	}
	return count
}

// filters returns the names of the files of filters.
func filters(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*.bloom*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

func await(t *testing.T, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}

// smallEpochs is the number of notes of an epoch in these tests.
const smallEpochs = 32

// fullEpochs returns the folder of a store with a note at each of many places: three complete epochs with files of filters,
// and a half of the active one.
func fullEpochs(t *testing.T) (options pebblestore.Options, places int) {
	t.Helper()
	options = pebblestore.Options{Dir: t.TempDir()}.WithEpochNotes(smallEpochs)
	store := open(t, options)
	const count = 3*smallEpochs + smallEpochs/2
	for i := range count {
		keep(t, store, place(i), 1)
	}
	await(t, "files of filters", func() bool { return len(filters(t, options.Dir)) == 3 })
	shut(t, store)
	return options, count
}

// copied returns the options of a store in a copy of a folder.
func copied(t *testing.T, options pebblestore.Options) pebblestore.Options {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(options.Dir)); err != nil {
		t.Fatal(err)
	}
	options.Dir = dir
	return options
}

// checkPlaces fails unless the store has the note of each place, and knows that a second one is not alone.
func checkPlaces(t *testing.T, store notes.Store, places int) {
	t.Helper()
	if count := countLocations(t, store); count != places {
		t.Errorf("%d locations are listed, want %d", count, places)
	}
	for i := range places {
		if log := timesOf(t, store, place(i)); len(log) != 1 {
			t.Fatalf("place %d has %d notes, want 1", i, len(log))
		}
		if i%5 == 0 {
			if receipt := keep(t, store, place(i), 2); receipt.Alone {
				t.Errorf("the second note of place %d is said to be alone", i)
			}
			if log := timesOf(t, store, place(i)); !slices.Equal(log, []int64{1, 2}) {
				t.Fatalf("place %d has the notes %v, want 1 and 2", i, log)
			}
		}
	}
}

func TestFilterIsBuiltAgain(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	const name, other = "locations-00000001.bloom", "locations-00000000.bloom"
	options, places := fullEpochs(t)
	content := func(t *testing.T, dir, name string) []byte {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return content
	}
	intact, another := content(t, options.Dir, name), content(t, options.Dir, other)
	// The contents of files, by name; nil is no file.
	type files map[string][]byte
	damages := map[string]files{
		"a missing file":         {name: nil},
		"an empty file":          {name: {}},
		"a longer file":          {name: append(bytes.Clone(intact), 0)},
		"the file of more notes": {name: append(bytes.Clone(intact), make([]byte, len(intact)-32)...)},
		"another epoch's file":   {name: another},
		"an unfinished file":     {name: nil, name + ".tmp": intact[:40]},
		"no files":               {name: nil, other: nil, "locations-00000002.bloom": nil},
		"the file of no epoch":   {"locations-00000099.bloom": intact},
		"the active epoch's":     {"locations-00000003.bloom": intact},
	}
	for cut := 1; cut < len(intact); cut += 13 {
		damages[fmt.Sprintf("the first %d bytes", cut)] = files{name: intact[:cut]}
	}
	for bit := 0; bit < 8*len(intact); bit += 29 {
		flipped := bytes.Clone(intact)
		flipped[bit/8] ^= 1 << (bit % 8)
		damages[fmt.Sprintf("bit %d flipped", bit)] = files{name: flipped}
	}
	for damage, files := range damages {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			options := copied(t, options)
			for name, content := range files {
				path := filepath.Join(options.Dir, name)
				if content == nil {
					remove(t, path)
				} else if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			store := open(t, options)
			defer shut(t, store)
			if found := filters(t, options.Dir); len(found) != 3 {
				t.Errorf("there are %q, want three files", found)
			}
			if !bytes.Equal(content(t, options.Dir, name), intact) || !bytes.Equal(content(t, options.Dir, other), another) {
				t.Error("the files are not as they were")
			}
			checkPlaces(t, store, places)
		})
	}
}

// The changes of an epoch tell its locations. Without them, its notes do; if these cannot be read either, every location
// may have notes.
func TestFilterWithoutChanges(t *testing.T) {
	t.Parallel()
	options, places := fullEpochs(t)
	all := []byte{'c'}
	for name, damage := range map[string]func(*pebble.Batch) error{
		"no changes": func(batch *pebble.Batch) error { return batch.DeleteRange(all, []byte{'c' + 1}, nil) },
		"a missing change in each epoch": func(batch *pebble.Batch) error {
			var errs []error
			for first := 5; first < places; first += smallEpochs {
				errs = append(errs, batch.Delete(pebblestore.ChangeKey(notes.Position(first)), nil))
			}
			return errors.Join(errs...)
		},
		"the last change is missing": func(batch *pebble.Batch) error {
			return batch.Delete(pebblestore.ChangeKey(notes.Position(places)), nil)
		},
		"a damaged change in each epoch": func(batch *pebble.Batch) error {
			var errs []error
			for first := 5; first < places; first += smallEpochs {
				errs = append(errs, batch.Set(pebblestore.ChangeKey(notes.Position(first)), make([]byte, 7), nil))
			}
			return errors.Join(errs...)
		},
		"damaged notes": func(batch *pebble.Batch) error {
			var errs []error
			for epoch := range uint32(4) {
				key := pebblestore.NoteKey(epoch, notes.Location{Latitude: math.MaxInt32, Longitude: math.MaxInt32}, 1)
				errs = append(errs, batch.Set(key[:len(key)-1], []byte("damage"), nil))
			}
			return errors.Join(append(errs, batch.DeleteRange(all, []byte{'c' + 1}, nil))...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := copied(t, options)
			store := open(t, options)
			batch := store.DB().NewBatch()
			if err := errors.Join(damage(batch), batch.Commit(pebble.Sync), batch.Close()); err != nil {
				t.Fatal(err)
			}
			shut(t, store)
			for _, name := range filters(t, options.Dir) {
				remove(t, filepath.Join(options.Dir, name))
			}
			store = open(t, options)
			defer shut(t, store)
			if name == "damaged notes" {
				if log := timesOf(t, store, place(1)); len(log) != 1 {
					t.Errorf("place 1 has %d notes, want 1", len(log))
				}
				if receipt := keep(t, store, place(2), 2); receipt.Alone {
					t.Error("a second note is said to be alone")
				}
				keep(t, store, place(places), 1)
				return
			}
			checkPlaces(t, store, places)
		})
	}
}

// A location with notes in every epoch has one log.
func TestRangeAcrossEpochs(t *testing.T) {
	t.Parallel()
	options := pebblestore.Options{Dir: t.TempDir()}.WithEpochNotes(smallEpochs)
	store := open(t, options)
	owner := &settled{t: t}
	here, want := place(0), []notes.Note(nil)
	const count = 3000
	for i := range count {
		location := place(i % 2 * (1 + i%7))
		owner.Add(1)
		store.Append(t.Context(), location, notes.Note{Time: 1, Encoded: fmt.Append(nil, i)}, notes.Ticket{Owner: owner})
		if location == here {
			want = append(want, notes.Note{Position: notes.Position(i + 1), Encoded: fmt.Append(nil, i)})
		}
		if i%10 == 0 {
			owner.Wait() // Groups are smaller than epochs.
		}
	}
	owner.Wait()
	random := rand.New(rand.NewPCG(3, 4))
	const end = notes.Position(math.MaxUint64)
	for store := range alsoReopened(t, store, options) {
		spans := []notes.Span{notes.Everything, {}, {After: end, Through: end}, {After: end, Through: end, Newest: 1}, {After: end - 1, Through: end, Newest: 3}}
		for _, note := range want {
			spans = append(spans, notes.Span{After: note.Position - 1, Through: note.Position})
		}
		for range 200 {
			spans = append(spans, notes.Span{
				After:   notes.Position(random.Uint64N(count)),
				Through: []notes.Position{notes.Position(random.Uint64N(2 * count)), end}[random.IntN(2)],
				Newest:  []int{0, 1 + random.IntN(10), 1 + random.IntN(count)}[random.IntN(3)],
			})
		}
		for _, span := range spans {
			got, want := spanOf(t, store, here, span), span.Of(want)
			if !slices.EqualFunc(got, want, func(a, b notes.Note) bool {
				return a.Position == b.Position && bytes.Equal(a.Encoded, b.Encoded)
			}) {
				t.Errorf("%v has %d notes, want %d", span, len(got), len(want))
			}
		}
	}
}

// Spans of a log that has more notes in an epoch than are read forward, and that is not in the cache.
func TestRangeNewestOfLongLog(t *testing.T) {
	t.Parallel()
	options := pebblestore.Options{Dir: t.TempDir()}.WithEpochNotes(200)
	store := open(t, options)
	keep(t, store, place(1), 1)
	const count = 300
	for i := range int64(count) {
		keep(t, store, place(0), i)
	}
	shut(t, store)
	store = open(t, options)
	defer shut(t, store)
	for _, newest := range []int{1, 64, 65, 99, 150, 199, 299, 300, 301, 400, 600} {
		if log := spanOf(t, store, place(0), notes.Span{Through: notes.Everything.Through, Newest: newest}); len(log) != min(newest, count) || log[len(log)-1].Time != count-1 {
			t.Errorf("of %d notes, the newest %d are %d", count, newest, len(log))
		}
	}
}

func TestRangeErrClosedWithoutNotes(t *testing.T) {
	t.Parallel()
	store := open(t, pebblestore.Options{Dir: t.TempDir()})
	shut(t, store)
	if err := lastError(t, store, place(0)); !errors.Is(err, notes.ErrClosed) {
		t.Errorf("got %v, want notes.ErrClosed", err)
	}
}

// A disk that is full for filters only holds up nothing else. Files are saved later.
func TestSaveFilterOnFullDisk(t *testing.T) {
	t.Parallel()
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpRename} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			t.Parallel()
			var full atomic.Bool
			full.Store(true)
			refused := make(chan struct{}, 100)
			disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == kind && strings.Contains(op.Path, ".bloom") && full.Load() {
					refused <- struct{}{}
					return syscall.ENOSPC
				}
				return nil
			}))
			options := pebblestore.Options{Dir: t.TempDir(), FS: disk}.WithEpochNotes(smallEpochs)
			options.Health = func(err error) { t.Errorf("health is %v", err) }
			store := open(t, options)
			next := 0
			fill := func() {
				t.Helper()
				for range smallEpochs {
					keep(t, store, place(next), 1)
					next++
				}
			}
			saved := func(count int) {
				t.Helper()
				await(t, "files of filters", func() bool {
					return len(filters(t, options.Dir)) == count && !strings.Contains(fmt.Sprint(filters(t, options.Dir)), "tmp")
				})
			}
			fill()
			fill()
			<-refused
			saved(0)
			full.Store(false)
			fill()
			saved(2)
			full.Store(true)
			fill()
			<-refused
			shut(t, store)
			saved(2)
			store = open(t, options)
			full.Store(false)
			fill()
			saved(4)
			checkPlaces(t, store, next)
			shut(t, store)
		})
	}
}
