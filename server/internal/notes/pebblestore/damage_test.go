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

// stored creates a store with notes in tables and in the write-ahead log. It returns a copy of the folder, as
// a killed process would leave it.
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
	fill(100_000) // more than a memtable
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store = open(t, pebblestore.Options{Dir: dir})
	// Damage to the last 32 KiB of the log looks like a write that a crash has cut short: write more.
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

// largest returns the largest file of the folder that matches a pattern.
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
	offset := int(part * float64(len(content)))
	for i := offset; i < min(offset+64, len(content)); i++ {
		content[i] ^= 0xff
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestErrDamagedNamesFile(t *testing.T) {
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
				t.Fatal("the damage is not detected")
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
		t.Errorf("%d of 80 notes are read, without an error", count)
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
