// Package jsonfile unmarshals JSON files that people edit, strictly, with the position of the first error. It does not
// know the meaning of the values.
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

// An Error is an error with its position.
type Error struct {
	Offset  int              // of the value or the invalid byte, in bytes from the start of the text
	Pointer jsontext.Pointer // of the value
	Err     error
}

func (e *Error) Error() string { return fmt.Sprintf("byte %d: %v", e.Offset+1, e.Err) }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// At returns err as an [*Error] at the value that pointer names in a valid text, or at offset 0 if there is no such
// value.
func At(text []byte, pointer jsontext.Pointer, err error) error {
	decoder := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		// The next token is a name or a value. The pointer of a member matches both.
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

// Unmarshal decodes text, one JSON value in UTF-8, into a struct or slice. Unknown and duplicate members are errors. A
// null member counts as absent. All errors are of the type [*Error].
func Unmarshal(text []byte, into any) error {
	if offset, err := textfile.Check(text); err != nil {
		return &Error{Offset: offset, Err: err}
	}
	err := json.Unmarshal(bytes.TrimRight(text, space), into, json.RejectUnknownMembers(true))
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return &Error{int(syntactic.ByteOffset), syntactic.JSONPointer, withPath(syntactic.JSONPointer, syntactic.Err)}
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		return &Error{int(semantic.ByteOffset), semantic.JSONPointer, mismatch(semantic)}
	}
	return err
}

// mismatch returns a semantic error in terms of JSON: the text of a [json.SemanticError] names Go types.
func mismatch(semantic *json.SemanticError) error {
	want := expected(semantic.GoType)
	switch {
	case errors.Is(semantic, json.ErrUnknownName):
		return withPath(semantic.JSONPointer.Parent(), fmt.Errorf("%q is unknown here: want %s", semantic.JSONPointer.LastToken(), names(semantic.GoType)))
	case len(semantic.JSONValue) > 0:
		return withPath(semantic.JSONPointer, fmt.Errorf("want %s, not %.40s", want, semantic.JSONValue))
	case semantic.Err != nil:
		return withPath(semantic.JSONPointer, fmt.Errorf("want %s: %w", want, semantic.Err))
	default:
		return withPath(semantic.JSONPointer, fmt.Errorf("want %s", want))
	}
}

func expected(kind reflect.Type) string {
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

// names returns the member names of a struct.
func names(object reflect.Type) string {
	fields := reflect.VisibleFields(object)
	names := make([]string, 0, len(fields))
	for _, field := range fields {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// withPath prefixes err with the path of a value, relative to the innermost array element.
func withPath(pointer jsontext.Pointer, err error) error {
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
