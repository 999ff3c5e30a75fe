package pebblestore_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

// recorded is the folder of a store that a program of an older version wrote, and the list of its notes.
const recorded = "testdata/35be36f"

// recordedLast is the last position that the recorded store has assigned. Its note was forgotten.
const recordedLast = 559

// recordedLogs returns the notes of the recorded store.
func recordedLogs(t *testing.T) logs {
	t.Helper()
	file, err := os.Open(filepath.Join(recorded, "notes.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	want := make(logs)
	for decoder := json.NewDecoder(file); ; {
		var line struct {
			notes.Location

			Position notes.Position `json:"position"`
			Time     int64          `json:"time"`
			Encoded  []byte         `json:"encoded"`
		}
		err := decoder.Decode(&line)
		if errors.Is(err, io.EOF) {
			return want
		}
		if err != nil {
			t.Fatal(err)
		}
		want[line.Location] = append(want[line.Location], notes.Note{Position: line.Position, Time: line.Time, Encoded: line.Encoded})
	}
}

// recordedFolder returns a copy of the folder of the recorded store.
func recordedFolder(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "notes")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(recorded, "notes"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// refusal returns what the older version that wrote the recorded store printed when it was started on a migrated folder.
func refusal(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recorded, "refusal.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
