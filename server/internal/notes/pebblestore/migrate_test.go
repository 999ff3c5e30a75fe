package pebblestore_test

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

func TestMigrateKeepsNotes(t *testing.T) {
	t.Parallel()
	want := recordedLogs(t)
	if len(want[notes.Location{Latitude: 413628156, Longitude: -749015468}]) != 500 || len(want) != 21 {
		t.Fatalf("the list of notes is not the one that was recorded: it has %d locations", len(want))
	}
	var logged bytes.Buffer
	options := pebblestore.Options{Dir: recordedFolder(t), Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	lock, err := os.Stat(filepath.Join(options.Dir, "LOCK"))
	if err != nil {
		t.Fatal(err)
	}
	store := open(t, options)
	want.check(t, store)
	for _, line := range []string{"notes=0 of=548 percent=0", `msg="migrated the store of notes" dir=` + options.Dir + " notes=548"} {
		if !strings.Contains(logged.String(), line) {
			t.Errorf("the log lacks %q:\n%s", line, &logged)
		}
	}
	if now, err := os.Stat(filepath.Join(options.Dir, "LOCK")); err != nil || !os.SameFile(lock, now) {
		t.Errorf("LOCK is another file (%v)", err)
	}
	shut(t, store)
	checkRemoved := func(names ...string) {
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(options.Dir, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left over (%v)", name, err)
			}
		}
	}
	checkRemoved("000005.sst", "000007.log", "OPTIONS-000008", "MANIFEST-000001", "migrating")
	logged.Reset()
	store = open(t, options)
	want.check(t, store)
	if strings.Contains(logged.String(), "migrat") {
		t.Errorf("it is migrated twice:\n%s", &logged)
	}
	lineage := store.Lineage()
	for store := range alsoReopened(t, store, options) {
		for location := range want {
			want.append(t, store, location, recordedLast)
		}
		want.append(t, store, notes.Location{Latitude: 10, Longitude: 20}, recordedLast) // All of its notes were forgotten.
		want.check(t, store)
	}
	store = open(t, options)
	want.check(t, store)
	if store.Lineage() != lineage || lineage == "" {
		t.Errorf("the lineage changes from %q to %q", lineage, store.Lineage())
	}
	shut(t, store)
	checkRemoved("MANIFEST-000006") // The engine keeps the previous manifest until it writes another one.
}

func TestMigratedStoreRangesAndForgets(t *testing.T) {
	t.Parallel()
	want := recordedLogs(t)
	store := open(t, pebblestore.Options{Dir: recordedFolder(t)})
	long := notes.Location{Latitude: 413628156, Longitude: -749015468}
	log := want[long]
	for _, span := range []notes.Span{
		{Through: log[0].Position}, {After: log[0].Position, Through: log[99].Position}, {Through: math.MaxUint64, Newest: 3},
		{After: log[397].Position, Through: log[402].Position}, {After: log[499].Position, Through: math.MaxUint64},
	} {
		var got []notes.Note
		for chunk, err := range store.Range(t.Context(), long, span) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, chunk...)
		}
		if !slices.EqualFunc(got, span.Of(log), equalNotes) {
			t.Errorf("%+v: got %d notes, want %d", span, len(got), len(span.Of(log)))
		}
	}
	within := notes.Rectangle{South: 400000000, West: -750000000, North: 420000000, East: -740000000}
	for location, err := range store.Locations(t.Context(), within, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := want[location]; !ok || !within.Contains(location) {
			t.Errorf("%v is found in %+v", location, within)
		}
	}
	before := log[250].Time
	forgotten := 0
	for location, log := range want {
		kept := log
		for i, note := range log {
			age := notes.AgeOf(note.Time, before, notes.Now())
			if age == notes.Young {
				break
			}
			if age == notes.Old {
				kept = log[i+1:]
			}
		}
		forgotten += len(log) - len(kept)
		if want[location] = kept; len(kept) == 0 {
			delete(want, location)
		}
	}
	if got, err := store.Forget(t.Context(), before); got != forgotten || err != nil {
		t.Errorf("Forget: got %d, %v, want %d", got, err, forgotten)
	}
	want.check(t, store)
	shut(t, store)
}

func TestMigrateDividesIntoEpochs(t *testing.T) {
	t.Parallel()
	for _, count := range []int{0, 1, 2, 5000} {
		dir := filepath.Join(t.TempDir(), "notes")
		want := writeOld(t, vfs.Default, dir, count, 1)
		const epochNotes = 700
		options := pebblestore.Options{Dir: dir, FS: vfs.Default, Fatal: func(err error) { t.Error(err) }}.WithEpochNotes(epochNotes)
		if err := pebblestore.MigrateInPasses(options); err != nil {
			t.Fatal(err)
		}
		store := open(t, options)
		want.check(t, store)
		epochs, err := pebblestore.EpochOf(store)
		if err != nil {
			t.Fatal(err)
		}
		sizes := make(map[uint32]int)
		previous := uint32(0)
		for _, position := range slices.Sorted(maps.Keys(epochs)) {
			if epochs[position] < previous || epochs[position] > previous+1 {
				t.Fatalf("position %d is in epoch %d, behind one in epoch %d", position, epochs[position], previous)
			}
			previous = epochs[position]
			sizes[previous]++
		}
		for epoch, size := range sizes {
			if size > epochNotes || size < epochNotes-1 && epoch != previous {
				t.Errorf("epoch %d has %d notes, want %d", epoch, size, epochNotes)
			}
		}
		if wanted := (count + epochNotes - 1) / epochNotes; len(sizes) < wanted {
			t.Errorf("%d notes are in %d epochs", count, len(sizes))
		}
		last := notes.Position(0)
		for position := range epochs {
			last = max(last, position)
		}
		for location, log := range want {
			newest := log[len(log)-1]
			for chunk, err := range store.Range(t.Context(), location, notes.Span{After: newest.Position - 1, Through: math.MaxUint64}) {
				if err != nil || len(chunk) != 1 {
					t.Errorf("got %d notes and %v, want the newest one of %v", len(chunk), err, location)
				}
				delete(epochs, newest.Position)
			}
			if _, ok := epochs[newest.Position]; ok {
				t.Errorf("the newest note of %v, at %d, is not found", location, newest.Position)
			}
		}
		want.append(t, store, notes.Location{}, last)
		want.check(t, store)
		shut(t, store)
	}
}

func TestMigrateErrNoRoom(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem()
	want := writeOld(t, disk, "notes", 1000, 6)
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 60 << 20, TotalBytes: 1 << 30})
	before := disk.String()
	_, err := pebblestore.Open(pebblestore.Options{Dir: "notes", FS: disk})
	if !errors.Is(err, notes.ErrNoRoom) || !strings.Contains(err.Error(), "60 MiB") {
		t.Errorf("got %v, want notes.ErrNoRoom", err)
	}
	if after := disk.String(); after != before {
		t.Errorf("the folder was\n%s\nand is\n%s", before, after)
	}
	want.checkOld(t, disk, "notes")
	disk.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 1 << 30})
	store := open(t, pebblestore.Options{Dir: "notes", FS: disk})
	want.check(t, store)
	shut(t, store)
}

// A folder "migrating" that belongs to another store is removed.
func TestMigrateIgnoresLeftovers(t *testing.T) {
	t.Parallel()
	options := pebblestore.Options{Dir: filepath.Join(t.TempDir(), "notes")}
	want := make(logs)
	for range 2 { // On open, the engine flushes its write-ahead log to a table.
		store := open(t, options)
		want.append(t, store, notes.Location{Latitude: 1}, 0)
		shut(t, store)
	}
	leftovers := filepath.Join(options.Dir, "migrating")
	if err := os.Mkdir(leftovers, 0o700); err != nil {
		t.Fatal(err)
	}
	table := filepath.Base(newestFile(t, options.Dir, "*.sst"))
	for _, name := range []string{table, "MANIFEST-000099", "000099.log", "OPTIONS-000099"} {
		if err := os.WriteFile(filepath.Join(leftovers, name), []byte("left over"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	store := open(t, options)
	want.check(t, store)
	shut(t, store)
	if _, err := os.Stat(leftovers); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftovers are still there (%v)", err)
	}
}

// An error that is not one of the engine's writes leaves nothing behind.
func TestMigrateRemovesIncompleteStore(t *testing.T) {
	t.Parallel()
	disk := vfs.NewMem()
	want := writeOld(t, disk, "notes", 1000, 8)
	before := disk.String()
	broken := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpCreate && strings.HasSuffix(op.Path, ".dbtmp") {
			return syscall.EIO
		}
		return nil
	}))
	if _, err := pebblestore.Open(pebblestore.Options{Dir: "notes", FS: broken}); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want EIO", err)
	}
	if after := disk.String(); after != before {
		t.Errorf("the folder was\n%s\nand is\n%s", before, after)
	}
	store := open(t, pebblestore.Options{Dir: "notes", FS: disk})
	want.check(t, store)
	shut(t, store)
}
