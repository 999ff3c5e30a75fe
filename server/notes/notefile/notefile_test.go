package notefile_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/notes/notefile"
)

func note(t *testing.T, longitude int32, text string, time int64) (notes.Location, notes.Note) {
	t.Helper()
	encoded, err := proto.Marshal(&routeguide.RouteNote{Location: &routeguide.Point{Longitude: longitude}, Message: text})
	if err != nil {
		t.Fatal(err)
	}
	return notes.Location{Longitude: longitude}, notes.Note{Time: time, Encoded: encoded}
}

func fill(t *testing.T) notes.Store {
	t.Helper()
	store := notes.NewMemory()
	for i := range 2000 {
		at, note := note(t, int32(i%7), fmt.Sprintf("note %d \u2603 \"quoted\"\n", i/2), int64(1e18+i/4))
		if i%5 == 0 {
			note.Encoded = append(note.Encoded, 0x98, 0x06, 0x07) // the unknown field 99
		}
		if _, err := notes.Append(t.Context(), store, at, note); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

func export(t *testing.T, store notes.Store) string {
	t.Helper()
	var file bytes.Buffer
	if _, err := notefile.Export(t.Context(), store, &file, nil); err != nil {
		t.Fatal(err)
	}
	return file.String()
}

func sorted(file string) string {
	// The order of the locations is the store's.
	var logs [7]strings.Builder
	for line := range strings.Lines(file) {
		i := strings.Index(line, `"longitude":`) + len(`"longitude":`)
		logs[line[i]-'0'].WriteString(line)
	}
	var all strings.Builder
	for i := range logs {
		all.WriteString(logs[i].String())
	}
	return all.String()
}

func TestWhatIsExportedAndImportedIsTheSameAgain(t *testing.T) {
	t.Parallel()
	file := export(t, fill(t))
	if got := strings.Count(file, "\n"); got != 2000 {
		t.Errorf("the file has %d lines, want 2000", got)
	}
	store := notes.NewMemory()
	added, there, redated, err := notefile.Import(t.Context(), store, strings.NewReader(file), nil)
	if redated != 0 || added != 2000 || there != 0 || err != nil {
		t.Errorf("got %d added, %d there, %v", added, there, err)
	}
	if sorted(export(t, store)) != sorted(file) {
		t.Error("the second export is not the first")
	}
}

func TestImportCanBeRepeatedAfterACrash(t *testing.T) {
	t.Parallel()
	file := export(t, fill(t))
	lines := strings.SplitAfter(file, "\n")
	for _, done := range []int{0, 1, 999, 1999, 2000} {
		store := notes.NewMemory()
		for _, part := range []string{strings.Join(lines[:done], ""), file, file} {
			if _, _, _, err := notefile.Import(t.Context(), store, strings.NewReader(part), nil); err != nil {
				t.Fatal(err)
			}
		}
		if sorted(export(t, store)) != sorted(file) {
			t.Errorf("after a crash at line %d, the notes are not those of the file", done)
		}
	}
}

// A note of 2131 would stay for a hundred years, and hold up those behind it.
func TestImportGivesNotesFromTheFutureThePresentTime(t *testing.T) {
	t.Parallel()
	lines := []string{
		`{"location":{"latitude":1,"longitude":2},"message":"a","time":"2020-01-02T03:04:05Z"}`,
		`{"location":{"latitude":1,"longitude":2},"message":"b","time":"2020-01-02T03:04:05Z"}`,
		`{"location":{"latitude":1,"longitude":2},"message":"b","time":"2131-01-02T03:04:05Z"}`,
		`{"location":{"latitude":1,"longitude":2},"message":"b","time":"2131-01-02T03:04:05Z"}`,
		`{"location":{"latitude":1,"longitude":2},"message":"b","time":"2131-01-02T03:04:06Z"}`,
		`{"location":{"latitude":1,"longitude":2},"message":"c","time":"2020-01-02T03:04:07Z"}`,
	}
	file := strings.Join(lines, "\n")
	for done := range len(lines) + 1 { // After a crash, it goes on where it was.
		store := notes.NewMemory()
		before := notes.Now()
		for _, test := range []struct {
			file           string
			added, redated int
		}{
			{strings.Join(lines[:done], "\n"), done, min(max(done-2, 0), 3)},
			{file, len(lines) - done, 3 - min(max(done-2, 0), 3)},
			{file, 0, 0},
		} {
			added, _, redated, err := notefile.Import(t.Context(), store, strings.NewReader(test.file), nil)
			if added != test.added || redated != test.redated || err != nil {
				t.Errorf("after %d lines: got %d added, %d redated, %v, want %d, %d", done, added, redated, err, test.added, test.redated)
			}
		}
		var texts []string
		for chunk, err := range store.Range(t.Context(), notes.Location{Latitude: 1, Longitude: 2}, notes.Everything) {
			if err != nil {
				t.Fatal(err)
			}
			for i, note := range chunk {
				texts = append(texts, string(note.Encoded[len(note.Encoded)-1:]))
				if redated := i >= 2 && i <= 4; note.Time > notes.Now() || redated != (note.Time > before-int64(3*time.Second)) {
					t.Errorf("note %d has the time %d", i, note.Time)
				}
			}
		}
		if got := strings.Join(texts, ""); got != "abbbbc" {
			t.Errorf("the log is %s, want abbbbc", got)
		}
	}
}

func TestImportNamesTheLineThatIsWrong(t *testing.T) {
	t.Parallel()
	const good = `{"location":{"latitude":1,"longitude":2},"message":"a","time":"2026-01-02T03:04:05.000000006Z"}`
	for bad, want := range map[string]string{
		`{`:         "line 3: unexpected EOF",
		`[]`:        "line 3: json",
		good + good: "line 3: there is more than one",
		`{"message":"a","time":"2026-01-02T03:04:05Z"}`:                                    "line 3: location is missing",
		`{"location":{"latitude":1},"message":"a"}`:                                        "line 3: time is missing",
		`{"location":{"latitude":1900000000},"message":"a","time":"2026-01-02T03:04:05Z"}`: "line 3: location.latitude",
		`{"location":{"latitude":1},"massage":"a","time":"2026-01-02T03:04:05Z"}`:          `line 3: json: unknown field "massage"`,
		`{"location":{"latitude":1},"encoded":"AAAA","time":"2026-01-02T03:04:05Z"}`:       "line 3: encoded",
		`{"location":{"latitude":1},"message":"a","time":"long ago"}`:                      "line 3: parsing time",
	} {
		store := notes.NewMemory()
		added, _, _, err := notefile.Import(t.Context(), store, strings.NewReader(good+"\n\n"+bad+"\n"+good+"\n"), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", bad, err, want)
		}
		if added != 1 {
			t.Errorf("%s: %d notes were added, want the one before it", bad, added)
		}
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	stats, err := notefile.Count(t.Context(), fill(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Notes != 2000 || stats.Locations != 7 || stats.Longest != 286 || stats.Oldest.UnixNano() != 1e18 || stats.Newest.UnixNano() != 1e18+499 {
		t.Errorf("got %+v", stats)
	}
	store := notes.NewMemory()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := notefile.Count(t.Context(), store, nil); !errors.Is(err, notes.ErrClosed) {
		t.Errorf("got %v of a closed store", err)
	}
}

func FuzzImport(f *testing.F) {
	f.Add(`{"location":{"latitude":1,"longitude":2},"message":"a","time":"2026-01-02T03:04:05.000000006Z"}`)
	f.Add(`{"location":null,"encoded":"CgIIAQ==","time":"2026-01-02T03:04:05Z"}`)
	f.Fuzz(func(t *testing.T, file string) {
		store := notes.NewMemory()
		added, _, _, err := notefile.Import(t.Context(), store, strings.NewReader(file), nil)
		if err != nil {
			return
		}
		again, there, _, err := notefile.Import(t.Context(), store, strings.NewReader(export(t, store)), nil)
		if err != nil || again != 0 || there != added {
			t.Errorf("of %d notes that were imported, %d are new when their export is: %v", added, again, err)
		}
	})
}
