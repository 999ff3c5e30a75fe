package strictjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/routeguide/server/internal/strictjson"
)

func TestErrorIsAtTheByteThatIsWrong(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                        "byte 1: unexpected end of JSON input",
		` {"a":1`:                 "byte 8: unexpected end of JSON input",
		`{"a":1} x`:               "byte 9: invalid character 'x' after top-level value",
		"\"\xe2\x98\"":            "byte 2: this is not UTF-8",
		"{\"a\":\x00}":            "byte 6: a zero byte is no text",
		"\xff\xfe{\x00}\x00":      "byte 1: it begins with a byte order mark of UTF-16",
		`"\\\ud800"`:              `byte 4: \ud800 is half of a surrogate pair`,
		`"\ud800\ud800\udc00"`:    `byte 2: \ud800 is half of a surrogate pair`,
		` [1]`:                    "byte 2: want an object, not [1]",
		`{"b" : 1}`:               `byte 2: "b" is unknown here: want a`,
		`{"a":1, "\u0061":2}`:     "byte 9: a: it is there twice",
		`{"a" : null}`:            "byte 8: a: null is no value",
		`{"a":{"b":{}},"a":null}`: "byte 15: a: it is there twice",
	} {
		value, err := strictjson.Parse([]byte(text))
		if err == nil {
			_, err = value.Object("a")
		}
		if _, ok := errors.AsType[*strictjson.Error](err); !ok || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestValueOfAnotherTypeIsRefused(t *testing.T) {
	t.Parallel()
	value, err := strictjson.Parse([]byte(`{"a": [{"b": "x"}, 7, 1e3, 2147483648]}`))
	if err != nil {
		t.Fatal(err)
	}
	members, err := value.Object("a")
	if err != nil {
		t.Fatal(err)
	}
	elements, err := members["a"].Array()
	if err != nil || len(elements) != 4 {
		t.Fatalf("got %v, %v", elements, err)
	}
	if number, err := elements[1].Int32(); number != 7 || err != nil {
		t.Errorf("got %d, %v", number, err)
	}
	_, notArray := elements[0].Array()
	_, notText := elements[1].Text()
	_, notWhole := elements[2].Int32()
	_, tooLarge := elements[3].Int32()
	_, notObject := elements[3].Object()
	for want, err := range map[string]error{
		`byte 8: a: want an array, not {"b": "x"}`:               notArray,
		`byte 20: a: want a string, not 7`:                       notText,
		`byte 23: a: want a whole number of 32 bits, not 1e3`:    notWhole,
		`byte 28: a: want a whole number of 32 bits, not 214748`: tooLarge,
		`byte 28: a: want an object, not 2147483648`:             notObject,
	} {
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// No text is changed silently: U+FFFD is in a value only if it is in the file.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{`"a"`, `"\ud83d\ude00"`, `"\ud800"`, "\"\xff\"", `"\\ud800"`, `"�"`, `"\ufffd"`, `{"a":[1,null]}`, `{"a": 12 ,"b":{"a":"}]\\"","b":-1}}`, `[1,"]",{"a":[]},true , []]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		value, err := strictjson.Parse(file)
		if err != nil {
			return
		}
		compare(t, file, value)
		text, err := value.Text()
		if err != nil {
			return
		}
		if strings.ContainsRune(text, utf8.RuneError) && !strings.Contains(string(file), "�") && !strings.Contains(strings.ToLower(string(file)), `\ufffd`) {
			t.Errorf("%q became %q", file, text)
		}
	})
}

// compare checks that a value has the elements or members that encoding/json finds in it.
func compare(t *testing.T, file []byte, value strictjson.Value) {
	t.Helper()
	var array []json.RawMessage
	elements, err := value.Array()
	if err == nil && (json.Unmarshal(file, &array) != nil || len(array) != len(elements)) {
		t.Errorf("%q has %d elements, want %d", file, len(elements), len(array))
	}
	for _, element := range elements {
		read(element)
	}
	var object map[string]json.RawMessage
	members, err := value.Object("a", "b")
	if err == nil && (json.Unmarshal(file, &object) != nil || len(object) != len(members)) {
		t.Errorf("%q has %d members, want %d", file, len(members), len(object))
	}
	for name, member := range members {
		read(member)
		if number, err := member.Int32(); err == nil {
			var want int32
			if err := json.Unmarshal(object[name], &want); err != nil || number != want {
				t.Errorf("%s of %q is %d, want %d, %v", name, file, number, want, err)
			}
		}
	}
}

// read reads a value as everything that it may be.
func read(value strictjson.Value) {
	_, _ = value.Array()
	_, _ = value.Object("a", "b")
	_, _ = value.Text()
}
