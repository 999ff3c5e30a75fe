package reload_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/routeguide/server/internal/reload"
)

func TestFilesGetReloadsChangedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	reads := 0
	load := func() (string, error) {
		reads++
		text, err := os.ReadFile(path)
		if string(text) == "wrong" {
			err = errors.New("it is wrong")
		}
		return string(text), err
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		file, err := reload.New(load, slog.New(slog.NewTextHandler(&log, nil)), path)
		if err != nil {
			t.Fatal(err)
		}
		check := func(want string) {
			t.Helper()
			if got := file.Get(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		check("first")
		write("another one")
		check("first") // Files are checked once a second.
		time.Sleep(2 * time.Second)
		check("another one")
		time.Sleep(2 * time.Second)
		before := reads
		check("another one")
		if reads != before {
			t.Error("an unchanged file is reloaded")
		}
		write("wrong")
		for range 3 {
			time.Sleep(2 * time.Second)
			check("another one")
		}
		if logged := strings.Count(log.String(), "it is wrong"); logged != 1 {
			t.Errorf("the log has the error %d times, want once:\n%s", logged, &log)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		check("another one")
		write("a third version")
		time.Sleep(2 * time.Second)
		check("a third version")
	})
}
