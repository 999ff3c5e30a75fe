package jsonfile_test

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"example.com/routeguide/server/internal/jsonfile"
)

type node struct {
	Text  string     `json:"text"`
	Count int32      `json:"count"`
	Time  *time.Time `json:"time"`
	Below []node     `json:"below"`
}

func TestUnmarshalErrorOffset(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                 "byte 1: unexpected EOF",
		" {\"text\":\"a\"\n\n":             "byte 13: unexpected EOF",
		`{"text":"a"} x`:                   "byte 14: invalid character 'x' after top-level value",
		"{\"text\":\"\xe2\x98\"}":          "byte 10: text: invalid UTF-8",
		"{\"text\":\x00}":                  "byte 9: a zero byte in a text file",
		"\xff\xfe{\x00}\x00":               "byte 1: it begins with a byte order mark of UTF-16",
		`{"text":"\\ud800\ud800"}`:         "byte 17: text: invalid surrogate pair",
		` [1]`:                             "byte 2: want an object",
		`{"Text" : 1}`:                     `byte 2: "Text" is unknown here: want text, count, time, below`,
		`{"count":1, "\u0063ount":2}`:      "byte 13: count: duplicate object member name",
		`{"below":[{},{"5":1}]}`:           `byte 15: "5" is unknown here: want text, count, time, below`,
		`{"below":[{},{"text":7}]}`:        "byte 22: text: want a string",
		`{"below" : {}}`:                   "byte 12: below: want an array",
		`{"below":[{"count":1e3}]}`:        "byte 20: count: want a whole number of 32 bits, not 1e3",
		`{"below":[{"count":2147483648}]}`: "byte 20: count: want a whole number of 32 bits, not 2147483648",
		`{"time":"2026-01-02 03:04:05Z"}`:  "byte 9: time: want RFC 3339, such as 2026-01-02T03:04:05Z: parsing time",
	} {
		err := jsonfile.Unmarshal([]byte(text), new(node))
		if _, ok := errors.AsType[*jsonfile.Error](err); !ok || !strings.HasPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestAtReturnsOffsetOfValue(t *testing.T) {
	t.Parallel()
	const text = ` {"a" : {"b":["b", {"b":1}]}, "b":[ [],2 ]}`
	for pointer, want := range map[jsontext.Pointer]string{
		"":         "{",
		"/a":       `{"b":[`,
		"/a/b":     `["b"`,
		"/a/b/0":   `"b"`,
		"/a/b/1":   `{"b":1}`,
		"/a/b/1/b": "1}",
		"/b":       "[ []",
		"/b/0":     "[],",
		"/b/1":     "2 ]",
		"/c":       " {",
	} {
		err, ok := errors.AsType[*jsonfile.Error](jsonfile.At([]byte(text), pointer, errors.ErrUnsupported))
		if !ok || !errors.Is(err.Err, errors.ErrUnsupported) || err.Pointer != pointer || !strings.HasPrefix(text[err.Offset:], want) {
			t.Errorf("%s: got %v, want %q", pointer, err, want)
		}
	}
}

// Unmarshal never replaces invalid text: a value has U+FFFD only if the file does.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{`"\ud83d\ude00"`, `"\ud800"`, "\"\xff\"", `"\\ud800"`, `"�"`, `"\ufffd"`, `7`} {
		f.Add(`{"text":` + seed + `}`)
		f.Add(`{"below":[null,{"text":"","count":-0,"time":` + seed + `}]}`)
	}
	f.Fuzz(func(t *testing.T, file string) {
		var root node
		if err := jsonfile.Unmarshal([]byte(file), &root); err != nil {
			if wrong, ok := errors.AsType[*jsonfile.Error](err); !ok || wrong.Offset < 0 || wrong.Offset > len(file) || wrong.Error() == "" {
				t.Errorf("%q: got %v", file, err)
			}
			return
		}
		if strings.ContainsRune(root.Text, utf8.RuneError) && !strings.Contains(file, "�") && !strings.Contains(strings.ToLower(file), `\ufffd`) {
			t.Errorf("%q became %q", file, root.Text)
		}
	})
}
