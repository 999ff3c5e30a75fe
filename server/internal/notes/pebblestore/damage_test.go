package pebblestore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// stored makes a store with notes in tables and in the write-ahead log, and returns its folder as a
// killed process would leave it.
func stored(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "notes")
	store := open(t, pebblestore.Options{Dir: dir})
	fill := func(size int) {
		for range 40 {
			note := notes.Note{Time: 1, Encoded: []byte(strings.Repeat("note ", size))}
			if _, err := notes.Append(t.Context(), store, notes.Location{Latitude: 1}, note); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(100_000) // More than a table's worth.
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store = open(t, pebblestore.Options{Dir: dir})
	// Damage to the last 32 KiB of the log cannot be told from a write that a crash has cut short.
	fill(2000)
	killed := filepath.Join(t.TempDir(), "killed")
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return killed
}

// files returns the largest file of the folder with a pattern.
func largest(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("there is no %s in %s: %v", pattern, dir, err)
	}
	size := int64(-1)
	var largest string
	for _, file := range found {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > size {
			largest, size = file, info.Size()
		}
	}
	return largest
}

func flip(t *testing.T, file string, part float64) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := int(part * float64(len(content)))
	for i := at; i < min(at+64, len(content)); i++ {
		content[i] ^= 0xff
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedStoreSaysWhichFileIsDamaged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pattern string
		damage  func(t *testing.T, file string)
	}{
		"a flipped manifest": {"MANIFEST-*", func(t *testing.T, file string) { flip(t, file, 0.3) }},
		"a missing table":    {"*.sst", func(t *testing.T, file string) { remove(t, file) }},
		"a cut table":        {"*.sst", func(t *testing.T, file string) { cut(t, file) }},
		"a flipped table":    {"*.sst", func(t *testing.T, file string) { flip(t, file, 0.5) }},
		"a flipped log":      {"*.log", func(t *testing.T, file string) { flip(t, file, 0.3) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := stored(t)
			file := largest(t, dir, test.pattern)
			test.damage(t, file)
			err := read(t, dir)
			if err == nil {
				t.Fatal("the damage is not seen")
			}
			t.Logf("%v", err)
			if !errors.Is(err, notes.ErrDamaged) {
				t.Errorf("got %v, want notes.ErrDamaged", err)
			}
			// The engine names a file by its number.
			if number := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)); !strings.Contains(err.Error(), number) {
				t.Errorf("got %v, which does not name %s", err, filepath.Base(file))
			}
		})
	}
}

// read opens the store and reads every note.
func read(t *testing.T, dir string) error {
	t.Helper()
	store, err := pebblestore.Open(pebblestore.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer store.Close()
	count := 0
	for chunk, err := range store.Range(t.Context(), notes.Location{Latitude: 1}, notes.Everything) {
		if err != nil {
			return err
		}
		count += len(chunk)
	}
	if count != 80 {
		t.Errorf("%d of 80 notes are there, and no error is", count)
	}
	return nil
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}
