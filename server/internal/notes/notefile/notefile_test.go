package notefile_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/notes/notefile"
)

// maxText is the largest text in bytes.
const maxText = 64 << 10

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
	store := memorystore.New()
	for i := range 2000 {
		location, note := note(t, int32(i%7), fmt.Sprintf("note %d \u2603 \"quoted\"\n", i/2), int64(1e18+i/4))
		if i%5 == 0 {
			note.Encoded = append(note.Encoded, 0x98, 0x06, 0x07) // the unknown field 99
		}
		if i%3 == 0 {
			note.ID = fmt.Sprint("id \"", i)
		}
		if _, err := notes.Append(t.Context(), store, location, note); err != nil {
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
	// Locations come in the store's order: sort the logs by location.
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

func TestExportImportRoundTrip(t *testing.T) {
	t.Parallel()
	file := export(t, fill(t))
	if got := strings.Count(file, "\n"); got != 2000 {
		t.Errorf("the file has %d lines, want 2000", got)
	}
	store := memorystore.New()
	added, present, redated, err := notefile.Import(t.Context(), store, strings.NewReader(file), maxText, nil)
	if redated != 0 || added != 2000 || present != 0 || err != nil {
		t.Errorf("got %d added, %d present, %v", added, present, err)
	}
	if sorted(export(t, store)) != sorted(file) {
		t.Error("the second export is not the first")
	}
}

func TestImportIsIdempotentAfterCrash(t *testing.T) {
	t.Parallel()
	file := export(t, fill(t))
	lines := strings.SplitAfter(file, "\n")
	for _, done := range []int{0, 1, 999, 1999, 2000} {
		store := memorystore.New()
		for _, part := range []string{strings.Join(lines[:done], ""), file, file} {
			if _, _, _, err := notefile.Import(t.Context(), store, strings.NewReader(part), maxText, nil); err != nil {
				t.Fatal(err)
			}
		}
		if sorted(export(t, store)) != sorted(file) {
			t.Errorf("after a crash at line %d, the notes are not those of the file", done)
		}
	}
}

// A note dated 2131 would be kept for a hundred years, and outlive the notes after it.
func TestImportRedatesNotesFromTheFuture(t *testing.T) {
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
	for done := range len(lines) + 1 { // the line at which a previous import crashed
		store := memorystore.New()
		before := notes.Now()
		for _, test := range []struct {
			file           string
			added, redated int
		}{
			{strings.Join(lines[:done], "\n"), done, min(max(done-2, 0), 3)},
			{file, len(lines) - done, 3 - min(max(done-2, 0), 3)},
			{file, 0, 0},
		} {
			added, _, redated, err := notefile.Import(t.Context(), store, strings.NewReader(test.file), maxText, nil)
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

const good = `{"location":{"latitude":1,"longitude":2},"message":"a","time":"2026-01-02T03:04:05.000000006Z"}`

// A line that is not one JSON object, or breaks a rule of RouteChat, is an error with its line and byte,
// counted from 1.
func TestImportRefusesDamagedLines(t *testing.T) {
	t.Parallel()
	encoded := func(note *routeguide.RouteNote) string {
		wire, err := proto.Marshal(note)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"encoded":%q,"time":"2026-01-02T03:04:05Z"}`, base64.StdEncoding.EncodeToString(wire))
	}
	point := &routeguide.Point{Latitude: 1}
	for bad, want := range map[string]string{
		// Not exactly one object.
		`{`:                   "byte 2: unexpected EOF",
		`[]`:                  "byte 1: want an object",
		good + good:           fmt.Sprintf("byte %d: invalid character '{' after top-level value", len(good)+1),
		good + `] ` + good:    fmt.Sprintf("byte %d: invalid character ']'", len(good)+1),
		good + `}}}}rest`:     fmt.Sprintf("byte %d: invalid character '}'", len(good)+1),
		good + "\r" + good:    fmt.Sprintf("byte %d: invalid character '{'", len(good)+2),
		"\xef\xbb\xbf" + good: "byte 1: invalid character",
		good + "\x00":         fmt.Sprintf("byte %d: a zero byte", len(good)+1),
		// Invalid strings.
		"{\"location\":{},\"message\":\"a\xff\",\"time\":\"2026-01-02T03:04:05Z\"}": "byte 28: message: invalid UTF-8",
		`{"location":{},"message":"\u0041\n\ud800 ","time":"2026-01-02T03:04:05Z"}`: `byte 35: message: invalid surrogate pair`,
		`{"location":{},"message":"\udc00\ud800","time":"2026-01-02T03:04:05Z"}`:    `byte 27: message: invalid surrogate pair`,
		`{"location":{},"message":"\ud83d\u0041","time":"2026-01-02T03:04:05Z"}`:    `byte 27: message: invalid surrogate pair`,
		// Missing, duplicate, unknown and mistyped members.
		`{"message":"a","time":"2026-01-02T03:04:05Z"}`:                 "byte 1: location: must be set",
		`{"location":{"latitude":1},"message":"a"}`:                     "byte 1: time is missing",
		`{"location":null,"message":"a","time":"2026-01-02T03:04:05Z"}`: "byte 13: location: must be set",
		`{"location":{},"message":"a","time":null}`:                     "byte 1: time is missing",
		`null`: "byte 1: time is missing",
		`{"location":{},"message":7,"time":"2026-01-02T03:04:05Z"}`:                        "byte 26: message: want a string",
		`{"location":{},"message":"a","message":"b","time":"2026-01-02T03:04:05Z"}`:        "byte 30: message: duplicate object member name",
		`{"location":{"latitude":1,"latitude":1},"time":"2026-01-02T03:04:05Z"}`:           "byte 27: location.latitude: duplicate object member name",
		`{"location":{"latitude":1},"massage":"a","time":"2026-01-02T03:04:05Z"}`:          `byte 28: "massage" is unknown`,
		`{"location":{"latitude":1}, "Message":"a","time":"2026-01-02T03:04:05Z"}`:         `byte 29: "Message" is unknown`,
		`{"location":{"altitude":1},"message":"a","time":"2026-01-02T03:04:05Z"}`:          `byte 14: location: "altitude" is unknown`,
		`{"location":{"latitude":"1"},"message":"a","time":"2026-01-02T03:04:05Z"}`:        "byte 25: location.latitude: want a whole number",
		`{"location":{"latitude":1.5},"message":"a","time":"2026-01-02T03:04:05Z"}`:        "byte 25: location.latitude: want a whole number",
		`{"location":{"latitude":1900000000},"message":"a","time":"2026-01-02T03:04:05Z"}`: "byte 13: location.latitude: 1900000000 is not between",
		`{"location":{"latitude":1},"message":"a","time":"long ago"}`:                      "byte 49: time: want RFC 3339",
		`{"location":{"latitude":1},"message":"a","time":"1969-12-31T23:59:59Z"}`:          "byte 49: time: 1969",
		// The same rules for encoded.
		`{"encoded":"AAAA","time":"2026-01-02T03:04:05Z"}`:                                   "byte 12: encoded: proto",
		`{"encoded":"CgA","time":"2026-01-02T03:04:05Z"}`:                                    "byte 12: encoded: want Base64",
		`{"encoded":"CgB=","time":"2026-01-02T03:04:05Z"}`:                                   "byte 12: encoded: want Base64",
		`{"encoded":"","time":"2026-01-02T03:04:05Z"}`:                                       "byte 12: encoded: location: must be set",
		`{"encoded":"CgASAf8=","time":"2026-01-02T03:04:05Z"}`:                               "byte 12: encoded: string field contains invalid UTF-8",
		encoded(&routeguide.RouteNote{Location: &routeguide.Point{Latitude: 1_900_000_000}}): "byte 12: encoded: location.latitude",
		encoded(&routeguide.RouteNote{Location: point, Message: strings.Repeat("x", 101)}):   "byte 12: encoded: message: is 101 bytes long: at most 100",
		`{"location":{"latitude":2},` + encoded(&routeguide.RouteNote{Location: point})[1:]:  "byte 13: location: differs from encoded",
		`{"message":"b",` + encoded(&routeguide.RouteNote{Location: point})[1:]:              "byte 12: message: differs from encoded",
		// A text over the limit.
		`{"location":{},"message":"` + strings.Repeat(`\u2603`, 34) + `","time":"2026-01-02T03:04:05Z"}`: "byte 26: message: is 102 bytes long: at most 100",
	} {
		store := memorystore.New()
		added, _, _, err := notefile.Import(t.Context(), store, strings.NewReader(good+"\n\n"+bad+"\n"+good+"\n"), 100, nil)
		if want := "line 3: " + want; err == nil || !strings.HasPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), want) {
			t.Errorf("%.100s: got %v, want %q", bad, err, want)
		}
		if added != 1 {
			t.Errorf("%.100s: %d notes were added, want the one before it", bad, added)
		}
	}
}

func TestImportLimitsEncodedNotes(t *testing.T) {
	t.Parallel()
	long := &routeguide.RouteNote{Location: &routeguide.Point{}, Message: "a"}
	long.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), make([]byte, 1200)))
	wire, err := proto.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf(`{"encoded":%q,"time":"2026-01-02T03:04:05Z"}`, base64.StdEncoding.EncodeToString(wire))
	for maxText, want := range map[int]string{100: "message: comes in a note of 1209 bytes: at most 1124 are allowed", 200: "", 0: ""} {
		added, _, _, err := notefile.Import(t.Context(), memorystore.New(), strings.NewReader(line), maxText, nil)
		if want == "" && (added != 1 || err != nil) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("up to %d bytes: got %d added, %v, want %q", maxText, added, err, want)
		}
	}
}

func TestImportAcceptsValidLines(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{
		"a BOM":                       "\xef\xbb\xbf" + good + "\n",
		"CRLF":                        good + "\r\n\r\n",
		"space around it":             " \t" + good + " ",
		"no end of the last line":     good,
		"coordinates that are 0":      `{"location":{},"message":"a","time":"2026-01-02T03:04:05Z"}`,
		"no text":                     `{"location":{},"time":"2026-01-02T03:04:05Z"}`,
		"surrogate pairs and escapes": `{"location":{},"message":"\ud83d\ude00\\ud800 \u0000\"","time":"2026-01-02T03:04:05+01:00"}`,
		"members of null":             `{"location":{"latitude":null},"message":null,"encoded":null,"time":"2026-01-02T03:04:05Z"}`,
		"encoded alone":               `{"encoded":"CgA=","time":"2026-01-02T03:04:05Z"}`,
		"a text as long as may be":    `{"location":{},"message":"` + strings.Repeat("x", maxText) + `","time":"2026-01-02T03:04:05Z"}`,
	} {
		added, _, _, err := notefile.Import(t.Context(), memorystore.New(), strings.NewReader(file), maxText, nil)
		if added != 1 || err != nil {
			t.Errorf("%s: got %d added, %v", name, added, err)
		}
	}
}

func TestImportErrorNamesUTF16(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"\xff\xfe{\x00}\x00\n\x00", "\xfe\xff\x00{\x00}\x00\n"} {
		if _, _, _, err := notefile.Import(t.Context(), memorystore.New(), strings.NewReader(file), maxText, nil); err == nil || !strings.Contains(err.Error(), "line 1: byte 1: it begins with a byte order mark of UTF-16") {
			t.Errorf("got %v", err)
		}
	}
}

// late is a store that fails the second append after the fourth.
type late struct {
	notes.Store

	count  int
	second notes.Ticket
}

var errLate = errors.New("late append error")

func (s *late) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	switch s.count++; s.count {
	case 2:
		s.second = ticket
		return
	case 4:
		s.second.Owner.Settle(s.second.Number, notes.Receipt{}, errLate)
	}
	s.Store.Append(ctx, location, note, ticket)
}

func TestImportErrorNamesLineOfAppendError(t *testing.T) {
	t.Parallel()
	lines := strings.SplitAfter(export(t, fill(t)), "\n")
	file := "\n" + strings.Join(lines[:5], "")
	added, _, _, err := notefile.Import(t.Context(), &late{Store: memorystore.New()}, strings.NewReader(file), maxText, nil)
	if !errors.Is(err, errLate) || !strings.HasPrefix(err.Error(), "line 3: ") || added != 3 {
		t.Errorf("got %d added, %v, want the error of line 3, and the three others before the fifth", added, err)
	}
}

// A previous import lost the first of two notes: to append it now would change their order.
func TestImportErrorIfOrderWouldChange(t *testing.T) {
	t.Parallel()
	lines := strings.SplitAfter(export(t, fill(t)), "\n")
	store := memorystore.New()
	if added, _, _, err := notefile.Import(t.Context(), store, strings.NewReader(lines[1]), maxText, nil); added != 1 || err != nil {
		t.Fatalf("got %d added, %v", added, err)
	}
	_, present, _, err := notefile.Import(t.Context(), store, strings.NewReader(lines[0]+lines[1]), maxText, nil)
	if want := "line 2: this note is already in the store, but an earlier one of its location was not"; present != 0 || err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %d present, %v, want %q", present, err, want)
	}
}

func TestImportAddsDuplicateLines(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	for want, file := range []string{good, good + "\n" + good} {
		added, present, _, err := notefile.Import(t.Context(), store, strings.NewReader(file), maxText, nil)
		if added != 1 || present != want || err != nil {
			t.Errorf("got %d added, %d present, %v, want 1 and %d", added, present, err, want)
		}
	}
}

// A small file is written by the final flush alone, which must report a full disk.
func TestExportErrorOfLastWrite(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	store := memorystore.New()
	location, note := note(t, 1, "a", 1e18)
	if _, err := notes.Append(t.Context(), store, location, note); err != nil {
		t.Fatal(err)
	}
	if _, err := notefile.Export(t.Context(), store, full, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
}

// broken is a store whose Locations ends with an error.
type broken struct{ notes.Store }

var errBroken = errors.New("locations error")

func (s broken) Locations(ctx context.Context, within notes.Rectangle, after *notes.Location) iter.Seq2[notes.Location, error] {
	return func(yield func(notes.Location, error) bool) {
		for location, err := range s.Store.Locations(ctx, within, after) {
			if !yield(location, err) {
				return
			}
		}
		yield(notes.Location{}, errBroken)
	}
}

func TestExportFromErrorOnTruncatedResponse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sock")
	socket, err := notefile.NewSocket(t.Context(), path, broken{fill(t)})
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	if err := notefile.ExportFrom(t.Context(), path, &file); err == nil {
		t.Errorf("a truncated export of %d notes is no error", strings.Count(file.String(), "\n"))
	}
	if _, err := notefile.CountFrom(t.Context(), path); err == nil {
		t.Error("a truncated count is no error")
	}
	if err := socket.Close(); err != nil {
		t.Error(err)
	}
}

// The path of a folder may be longer than an address of a socket. Only the server's user may connect.
func TestSocketWithLongPath(t *testing.T) {
	t.Parallel()
	short, err := os.MkdirTemp("", "") // t.TempDir is too long: it has the name of the test.
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(short)
	for _, length := range []int{50, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 300, 1000} {
		folder := short
		for left := length - len(folder+"/sock"); left > 0; left -= 200 {
			folder += "/" + strings.Repeat("n", min(left, 200)-1)
		}
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, "sock")
		socket, err := notefile.NewSocket(t.Context(), path, fill(t))
		if err != nil {
			t.Errorf("%d bytes: %v", len(path), err)
			continue
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("%d bytes: got %v, %v, want a socket with the mode 0600", len(path), info, err)
		}
		if stats, err := notefile.CountFrom(t.Context(), path); err != nil || stats.Notes != 2000 {
			t.Errorf("%d bytes: got %d notes, %v", len(path), stats.Notes, err)
		}
		if err := socket.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d bytes: the socket was not removed: %v", len(path), err)
		}
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	stats, err := notefile.Count(t.Context(), fill(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Notes != 2000 || stats.Locations != 7 || stats.Longest != 286 || stats.Oldest.UnixNano() != 1e18 || stats.Newest.UnixNano() != 1e18+499 {
		t.Errorf("got %+v", stats)
	}
	store := memorystore.New()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := notefile.Count(t.Context(), store, nil); !errors.Is(err, notes.ErrClosed) {
		t.Errorf("got %v of a closed store", err)
	}
}

func FuzzImport(f *testing.F) {
	f.Add(`{"location":{"latitude":1,"longitude":2},"message":"a","time":"2026-01-02T03:04:05.000000006Z"}`)
	f.Add(`{"location":{"latitude":1.5},"message":"\ud800","massage":[{}],"encoded":"!"}`)
	f.Add(`{"location":null,"encoded":"CgIIAQ==","time":"2026-01-02T03:04:05Z"}`)
	f.Fuzz(func(t *testing.T, file string) {
		store := memorystore.New()
		added, _, _, err := notefile.Import(t.Context(), store, strings.NewReader(file), maxText, nil)
		if err != nil {
			return
		}
		again, present, _, err := notefile.Import(t.Context(), store, strings.NewReader(export(t, store)), maxText, nil)
		if err != nil || again != 0 || present != added {
			t.Errorf("of %d notes that were imported, %d are new when their export is: %v", added, again, err)
		}
	})
}
