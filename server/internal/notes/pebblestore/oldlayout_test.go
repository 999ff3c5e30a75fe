package pebblestore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// The layout of older versions, as far as writing it takes.
var oldComparer = func() *pebble.Comparer {
	comparer := *pebble.DefaultComparer
	comparer.Name = "routeguide.location"
	comparer.Split = func(key []byte) int { return min(len(key), 9) }
	comparer.ImmediateSuccessor = func(dst, prefix []byte) []byte { return append(append(dst, prefix...), 0) }
	return &comparer
}()

// oldStore opens a folder as an older version does.
func oldStore(fs vfs.FS, dir string) (*pebble.DB, error) {
	return pebble.Open(dir, &pebble.Options{
		Comparer:              oldComparer,
		FS:                    fs,
		FormatMajorVersion:    pebble.FormatNewest,
		MemTableSize:          1 << 20,
		L0CompactionThreshold: 4,
		Logger:                quiet{},
	})
}

type quiet struct{}

func (quiet) Infof(string, ...any) {}

func (quiet) Errorf(string, ...any) {}

func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func oldKey(location notes.Location, position notes.Position) []byte {
	key := binary.BigEndian.AppendUint32([]byte{'n'}, uint32(location.Latitude)^1<<31)
	key = binary.BigEndian.AppendUint32(key, uint32(location.Longitude)^1<<31)
	return binary.BigEndian.AppendUint64(key, uint64(position))
}

// appendOld appends a note as an older version does.
func appendOld(db *pebble.DB, location notes.Location, note notes.Note, options *pebble.WriteOptions) error {
	batch := db.NewBatch()
	value := append(binary.BigEndian.AppendUint64(nil, uint64(note.Time)), note.Encoded...)
	if err := batch.Set(oldKey(location, note.Position), value, nil); err != nil {
		return err
	}
	if err := batch.Set([]byte{'p'}, binary.BigEndian.AppendUint64(nil, uint64(note.Position)), nil); err != nil {
		return err
	}
	return batch.Commit(options)
}

// readOld reads all notes, and the last position.
func readOld(t *testing.T, db *pebble.DB) (logs, notes.Position) {
	t.Helper()
	got := make(logs)
	iterator, err := db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	last := notes.Position(0)
	for valid := iterator.First(); valid; valid = iterator.Next() {
		key, value := iterator.Key(), bytes.Clone(iterator.Value())
		if len(key) == 1 {
			last = notes.Position(binary.BigEndian.Uint64(value))
			continue
		}
		location := notes.Location{
			Latitude:  int32(binary.BigEndian.Uint32(key[1:]) ^ 1<<31),
			Longitude: int32(binary.BigEndian.Uint32(key[5:]) ^ 1<<31),
		}
		got[location] = append(got[location], notes.Note{
			Position: notes.Position(binary.BigEndian.Uint64(key[9:])),
			Time:     int64(binary.BigEndian.Uint64(value)),
			Encoded:  value[8:],
		})
	}
	if err := iterator.Close(); err != nil {
		t.Fatal(err)
	}
	return got, last
}

// writeOld writes a store of count notes, in tables and in the write-ahead log, with gaps between the positions.
func writeOld(t *testing.T, fs vfs.FS, dir string, count int, seed uint64) logs {
	t.Helper()
	db, err := oldStore(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(seed, 0))
	want := make(logs)
	position := notes.Position(100)
	for i := range count {
		location := notes.Location{Latitude: random.Int32(), Longitude: random.Int32()}
		if i%8 != 0 {
			location = notes.Location{Latitude: random.Int32N(6) - 3, Longitude: random.Int32N(6) - 3}
		}
		position += 1 + notes.Position(random.IntN(20)/19*7)
		note := notes.Note{Position: position, Time: int64(i)*1000 + 1, Encoded: make([]byte, 1+random.IntN(60))}
		for i := range note.Encoded {
			note.Encoded[i] = byte(random.Uint32())
		}
		if err := appendOld(db, location, note, &pebble.WriteOptions{Sync: i%500 == 0}); err != nil {
			t.Fatal(err)
		}
		want[location] = append(want[location], note)
		if i == count*3/4 {
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(db.LogData(nil, pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	return want
}

// checkOld fails unless an older version finds all notes in the folder, or refuses it. It leaves a note, and returns
// whether it could.
func (want logs) checkOld(t *testing.T, fs vfs.FS, dir string) bool {
	t.Helper()
	db, err := oldStore(fs, dir)
	if err != nil {
		if _, reason, ok := strings.Cut(err.Error(), "comparer name "); !ok || !strings.Contains(refusal(t), reason) {
			t.Errorf("an older version gets %v", err)
		}
		return false
	}
	got, last := readOld(t, db)
	want.compare(t, got)
	note := notes.Note{Position: last + 1, Time: 7, Encoded: []byte("left by an older version")}
	location := notes.Location{Latitude: 77}
	if err := errors.Join(appendOld(db, location, note, pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	want[location] = append(want[location], note)
	return true
}

// A store of another program is left alone.
func TestOpenRefusesOtherComparer(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "notes")
	db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set([]byte("a"), []byte("b"), pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	_, err = pebblestore.Open(pebblestore.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), pebble.DefaultComparer.Name) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, which does not name the comparer %s", err, pebble.DefaultComparer.Name)
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Error("the folder has changed")
	}
}

// An older version refuses a migrated folder, and leaves it as it is.
func TestOlderVersionRefusesMigrated(t *testing.T) {
	t.Parallel()
	dir := recordedFolder(t)
	store := open(t, pebblestore.Options{Dir: dir})
	shut(t, store)
	before := contents(t, dir)
	want := recordedLogs(t)
	if want.checkOld(t, vfs.Default, dir) {
		t.Error("an older version opens the folder")
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Error("an older version has changed the folder")
	}
	store = open(t, pebblestore.Options{Dir: dir})
	want.check(t, store)
	shut(t, store)
}
