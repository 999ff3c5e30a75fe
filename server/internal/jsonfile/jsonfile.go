// Package jsonfile unmarshals JSON files that people edit and that may be damaged, and says at which byte they are.
// It knows nothing of what the values mean.
package jsonfile

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"example.com/routeguide/internal/textfile"
)

const space = " \t\r\n"

// An Error says what is wrong, and where.
type Error struct {
	Offset  int              // bytes before it in the text
	Pointer jsontext.Pointer // to the value
	Err     error
}

func (e *Error) Error() string { return fmt.Sprintf("byte %d: %v", e.Offset+1, e.Err) }

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// At returns err as an [*Error] at a value of a valid text, or at its beginning if there is no such value.
func At(text []byte, pointer jsontext.Pointer, err error) error {
	decoder := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		// What follows is a name or a value; a pointer to a member holds for both.
		offset := len(text) - len(bytes.TrimLeft(text[decoder.InputOffset():], space+",:"))
		parent, length := decoder.StackIndex(decoder.StackDepth())
		isName := parent == jsontext.KindBeginObject && length%2 == 0
		if _, end := decoder.ReadToken(); end != nil {
			return &Error{0, pointer, err}
		}
		if !isName && decoder.StackPointer() == pointer {
			return &Error{offset, pointer, err}
		}
	}
}

// Unmarshal stores in a struct or slice what text says, all of which is one value in UTF-8. It refuses members that
// are unknown or there twice. A member that is null counts as left out. All errors are of the type [*Error].
func Unmarshal(text []byte, into any) error {
	if offset, err := textfile.Check(text); err != nil {
		return &Error{Offset: offset, Err: err}
	}
	err := json.Unmarshal(bytes.TrimRight(text, space), into, json.RejectUnknownMembers(true))
	if wrong, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return &Error{int(wrong.ByteOffset), wrong.JSONPointer, within(wrong.JSONPointer, wrong.Err)}
	}
	if wrong, ok := errors.AsType[*json.SemanticError](err); ok {
		return &Error{int(wrong.ByteOffset), wrong.JSONPointer, mismatch(wrong)}
	}
	return err
}

// mismatch returns what is wrong in the words of JSON: the text of a [json.SemanticError] names types of Go.
func mismatch(wrong *json.SemanticError) error {
	want := wanted(wrong.GoType)
	switch {
	case errors.Is(wrong, json.ErrUnknownName):
		return within(wrong.JSONPointer.Parent(), fmt.Errorf("%q is unknown here: want %s", wrong.JSONPointer.LastToken(), names(wrong.GoType)))
	case len(wrong.JSONValue) > 0:
		return within(wrong.JSONPointer, fmt.Errorf("want %s, not %.40s", want, wrong.JSONValue))
	case wrong.Err != nil:
		return within(wrong.JSONPointer, fmt.Errorf("want %s: %w", want, wrong.Err))
	default:
		return within(wrong.JSONPointer, fmt.Errorf("want %s", want))
	}
}

func wanted(kind reflect.Type) string {
	switch {
	case kind == reflect.TypeFor[time.Time]():
		return "RFC 3339, such as 2026-01-02T03:04:05Z"
	case kind.Kind() == reflect.Int32:
		return "a whole number of 32 bits"
	case kind.Kind() == reflect.String:
		return "a string"
	case kind.Kind() == reflect.Slice:
		return "an array"
	default:
		return "an object"
	}
}

// names returns the names of the members that a struct has.
func names(object reflect.Type) string {
	names := make([]string, object.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(object.Field(i).Tag.Get("json"), ",")
	}
	return strings.Join(names, ", ")
}

// within returns err with the path of the value, from the innermost element of an array on.
func within(pointer jsontext.Pointer, err error) error {
	var path []string
	for token := range pointer.Tokens() {
		path = append(path, token)
		if _, isIndex := strconv.Atoi(token); isIndex == nil {
			path = nil
		}
	}
	if path == nil {
		return err
	}
	return fmt.Errorf("%s: %w", strings.Join(path, "."), err)
}
