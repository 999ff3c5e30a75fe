// Package strictjson is a strict JSON parser for files that may be damaged. Where encoding/json guesses, it refuses:
// invalid UTF-8, lone surrogates, members that are repeated, unknown or null, and anything after the value. Each
// error says at which byte. It knows nothing of what the values mean.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"example.com/routeguide/internal/textfile"
)

// An Error says what is wrong, and where.
type Error struct {
	// Offset is where it is wrong: bytes before that in the text.
	Offset int
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("byte %d: %v", e.Offset+1, e.Err) }

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// A Value is one value in a JSON text. All errors of its methods are of the type [*Error].
type Value struct {
	name   string // path from the whole text on, empty for that
	text   []byte // without white space around it
	offset int    // bytes before it in the whole text
}

// Parse returns the value that is all of text, which is kept.
func Parse(text []byte) (Value, error) {
	if offset, err := textfile.Check(text); err != nil {
		return Value{}, &Error{offset, err}
	}
	if offset := invalidUTF8(text); offset >= 0 {
		return Value{}, &Error{offset, errors.New("this is not UTF-8")}
	}
	if err := syntax(text); err != nil {
		return Value{}, err
	}
	if offset := loneSurrogate(text); offset >= 0 {
		return Value{}, &Error{offset, fmt.Errorf("%s is half of a surrogate pair, and no character", text[offset:offset+len(`\uXXXX`)])}
	}
	return Value{text: bytes.TrimSpace(text), offset: len(text) - len(bytes.TrimLeft(text, " \t\r\n"))}, nil
}

// Errorf returns an error at the value.
func (v Value) Errorf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if v.name != "" {
		err = fmt.Errorf("%s: %w", v.name, err)
	}
	return &Error{v.offset, err}
}

// At returns err as one at the value, unless it is nil.
func (v Value) At(err error) error {
	if err == nil {
		return nil
	}
	return &Error{v.offset, err}
}

// Object returns the members of an object by their names, which are among those given, in the case in which they are
// given.
func (v Value) Object(names ...string) (map[string]Value, error) {
	if v.text[0] != '{' {
		return nil, v.Errorf("want an object, not %s", v.shown())
	}
	members := make(map[string]Value, len(names))
	for key, next, ok := v.element(1); ok; key, next, ok = v.element(next) {
		name, err := key.Text()
		if err != nil {
			return nil, err
		}
		if key.name = v.path(name); !slices.Contains(names, name) {
			return nil, key.At(fmt.Errorf("%q is unknown here: want %s", key.name, strings.Join(names, ", ")))
		}
		if _, there := members[name]; there {
			return nil, key.Errorf("it is there twice")
		}
		var member Value
		member, next, _ = v.element(next)
		member.name = key.name
		if string(member.text) == "null" {
			return nil, member.Errorf("null is no value: leave it out if there is none")
		}
		members[name] = member
	}
	return members, nil
}

// Array returns the elements of an array.
func (v Value) Array() ([]Value, error) {
	if v.text[0] != '[' {
		return nil, v.Errorf("want an array, not %s", v.shown())
	}
	var elements []Value
	for element, next, ok := v.element(1); ok; element, next, ok = v.element(next) {
		elements = append(elements, element)
	}
	return elements, nil
}

// IsObject returns whether the value is an object.
func (v Value) IsObject() bool { return v.text[0] == '{' }

// Text returns the text of a string.
func (v Value) Text() (string, error) {
	if v.text[0] != '"' {
		return "", v.Errorf("want a string, not %s", v.shown())
	}
	if bytes.IndexByte(v.text, '\\') < 0 {
		return string(v.text[1 : len(v.text)-1]), nil
	}
	var text string
	err := json.Unmarshal(v.text, &text)
	return text, v.At(err)
}

// Int32 returns a whole number.
func (v Value) Int32() (int32, error) {
	number, err := strconv.ParseInt(string(v.text), 10, 32)
	if err != nil {
		return 0, v.Errorf("want a whole number of 32 bits, not %s", v.shown())
	}
	return int32(number), nil
}

// Int32s returns the whole numbers that an object has by names, and no others. Those that it lacks are 0.
func (v Value) Int32s(names ...string) ([]int32, error) {
	members, err := v.Object(names...)
	if err != nil {
		return nil, err
	}
	numbers := make([]int32, len(names))
	for i, name := range names {
		if member, there := members[name]; there {
			if numbers[i], err = member.Int32(); err != nil {
				return nil, err
			}
		}
	}
	return numbers, nil
}

// maxShown is how much of a value an error shows, in bytes.
const maxShown = 40

func (v Value) shown() string {
	if len(v.text) <= maxShown {
		return string(v.text)
	}
	return strings.ToValidUTF8(string(v.text[:maxShown]), "") + "..."
}

func (v Value) path(name string) string {
	if v.name == "" {
		return name
	}
	return v.name + "." + name
}

// separators stand between the elements of a valid object or array.
const separators = " \t\r\n,:"

// element returns the key or value that comes next in an object or array, from an offset in it, and the offset behind
// that. There is none behind the last one.
func (v Value) element(offset int) (element Value, next int, ok bool) {
	for strings.IndexByte(separators, v.text[offset]) >= 0 {
		offset++
	}
	if offset == len(v.text)-1 {
		return Value{}, 0, false
	}
	next = offset + valueLength(v.text[offset:])
	return Value{name: v.name, text: v.text[offset:next], offset: v.offset + offset}, next, true
}

// valueLength returns the length of the valid value with which text begins.
func valueLength(text []byte) int {
	switch text[0] {
	case '"':
		return stringLength(text)
	case '{', '[':
		depth := 0
		for i := 0; ; i++ {
			switch text[i] {
			case '"':
				i += stringLength(text[i:]) - 1
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
		}
	default:
		return bytes.IndexAny(text, separators+"}]")
	}
}

// stringLength returns the length of the valid string with which text begins.
func stringLength(text []byte) int {
	for i := 1; ; i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// syntax returns an error unless text is one value.
func syntax(text []byte) error {
	if json.Valid(text) {
		return nil
	}
	// The space keeps the offset of an end that comes too early apart from that of a last byte that is wrong.
	var raw json.RawMessage
	err := json.Unmarshal(append(bytes.Clone(text), ' '), &raw)
	offset := len(bytes.TrimRight(text, " \t\r\n"))
	if wrong, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = min(offset, int(wrong.Offset)-1) // encoding/json counts the byte that is wrong, too.
	}
	return &Error{offset, err}
}

// invalidUTF8 returns the offset of the first byte that is not UTF-8, or -1.
func invalidUTF8(text []byte) int {
	if utf8.Valid(text) {
		return -1
	}
	offset := 0
	for {
		r, size := utf8.DecodeRune(text[offset:])
		if r == utf8.RuneError && size <= 1 {
			return offset
		}
		offset += size
	}
}

// loneSurrogate returns the offset of the first escape that is half of a surrogate pair without the other half, or
// -1. The text is valid JSON, so escapes are whole and within strings.
func loneSurrogate(text []byte) int {
	const length = len(`\uXXXX`)
	for offset := 0; ; {
		next := bytes.IndexByte(text[offset:], '\\')
		if next < 0 {
			return -1
		}
		offset += next
		first, ok := escaped(text[offset:])
		switch {
		case !ok:
			offset += len(`\n`)
		case !utf16.IsSurrogate(first):
			offset += length
		default:
			second, _ := escaped(text[offset+length:])
			if utf16.DecodeRune(first, second) == utf8.RuneError {
				return offset
			}
			offset += 2 * length
		}
	}
}

// escaped returns the code unit of an escape like \u0041 at the beginning of text.
func escaped(text []byte) (rune, bool) {
	if !bytes.HasPrefix(text, []byte(`\u`)) {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(unit), err == nil
}
