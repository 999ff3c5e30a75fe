package pebblestore_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

func TestMigrateErrDamaged(t *testing.T) {
	t.Parallel()
	origin := filepath.Join(t.TempDir(), "notes")
	writeOld(t, vfs.Default, origin, 40_000, 7)
	unexpected := func(key, value string) func(*testing.T, string, string) {
		return func(t *testing.T, dir, _ string) {
			t.Helper()
			db, err := oldStore(vfs.Default, dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Set([]byte(key), []byte(value), pebble.Sync), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	// newest damages the newest file that matches a pattern: older logs and manifests are not read.
	newest := func(damage func(*testing.T, string)) func(*testing.T, string, string) {
		return func(t *testing.T, dir, pattern string) {
			t.Helper()
			damage(t, newestFile(t, dir, pattern))
		}
	}
	flipped := func(part float64) func(*testing.T, string, string) {
		return newest(func(t *testing.T, file string) { t.Helper(); flip(t, file, part) })
	}
	for name, test := range map[string]struct {
		names  string // pattern of the file that is damaged, whose number the error names; "" is none
		damage func(t *testing.T, dir, pattern string)
	}{
		"a flipped manifest": {"MANIFEST-*", flipped(0)},
		"a missing table":    {"*.sst", newest(remove)},
		"a cut table":        {"*.sst", newest(cut)},
		"a flipped table":    {"*.sst", flipped(0.5)},
		"a flipped log":      {"*.log", flipped(0.05)},
		"an unknown key":     {"", unexpected("x", "y")},
		"a short key":        {"", unexpected("n1234", "123456789")},
		"an empty note":      {"", unexpected("n1234567812345678", "12345678")},
		"a short position":   {"", unexpected("p", "1234")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "notes")
			if err := os.CopyFS(dir, os.DirFS(origin)); err != nil {
				t.Fatal(err)
			}
			number := ""
			if test.names != "" {
				base := filepath.Base(newestFile(t, dir, test.names))
				number = strings.TrimSuffix(base, filepath.Ext(base))
			}
			test.damage(t, dir, test.names)
			before := contents(t, dir)
			_, err := pebblestore.Open(pebblestore.Options{Dir: dir, Fatal: func(err error) { t.Error(err) }})
			if err == nil {
				t.Fatal("the damage is not detected")
			}
			t.Log(err)
			if !errors.Is(err, notes.ErrDamaged) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), number) {
				t.Errorf("got %v, want notes.ErrDamaged that names the folder, and the file %s", err, number)
			}
			if !maps.Equal(before, contents(t, dir)) {
				t.Error("the old store has changed")
			}
		})
	}
}

// newestFile returns the file with the largest number that matches a pattern.
func newestFile(t *testing.T, dir, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no %s in %s: %v", pattern, dir, err)
	}
	return slices.Max(files)
}

// contents returns the contents of the files in a folder by their names, and those of its subfolders.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
