// Package notefile is the file in which notes move from one store to another, and in which people look
// at them: newline-delimited JSON, one note a line, the notes of a location together and in their
// order. It knows the store of notes and the message that a note is.
package notefile

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/jsonfile"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
)

// line is one note. Its names are those of the contract, but for those that the contract lacks.
type line struct {
	Location *location `json:"location"`
	Message  *string   `json:"message"`
	// Time is when the note came in, in RFC 3339 with nanoseconds, UTC.
	Time *time.Time `json:"time"`
	// Encoded is the note as the client sent it, in Base64, if that says more than location and message do.
	Encoded *string `json:"encoded,omitzero"`
}

type location struct {
	Latitude  int32 `json:"latitude"`
	Longitude int32 `json:"longitude"`
}

// marshal returns the line of a note, with its end.
func marshal(at notes.Location, kept notes.Note) ([]byte, error) {
	var note routeguide.RouteNote
	if err := proto.Unmarshal(kept.Encoded, &note); err != nil {
		return nil, fmt.Errorf("%w: a note at %v: %w", notes.ErrDamaged, at, err)
	}
	came := time.Unix(0, kept.Time).UTC()
	line := line{
		Location: &location{at.Latitude, at.Longitude},
		Message:  new(note.GetMessage()),
		Time:     &came,
	}
	again, err := line.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, kept.Encoded) {
		line.Encoded = new(base64.StdEncoding.EncodeToString(kept.Encoded))
	}
	text, err := json.Marshal(&line)
	return append(text, '\n'), err
}

// encode returns the note of a line on the wire.
func (l *line) encode() ([]byte, error) {
	if l.Encoded != nil {
		encoded, err := base64.StdEncoding.Strict().DecodeString(*l.Encoded)
		if err != nil {
			return nil, fmt.Errorf("want Base64: %w", err)
		}
		return encoded, nil
	}
	note := &routeguide.RouteNote{}
	if l.Message != nil {
		note.Message = *l.Message
	}
	if l.Location != nil {
		note.Location = &routeguide.Point{Latitude: l.Location.Latitude, Longitude: l.Location.Longitude}
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(note)
}

// unmarshal returns the note of a line, which keeps every rule that RouteChat has, with texts of up to maxText bytes (0
// is no bound). A coordinate or message that is left out is 0 or empty, as in RouteChat. Errors are of the type
// [*jsonfile.Error].
func unmarshal(text []byte, maxText int) (notes.Location, notes.Note, error) {
	fail := func(pointer jsontext.Pointer, err error) (notes.Location, notes.Note, error) {
		return notes.Location{}, notes.Note{}, jsonfile.At(text, pointer, err)
	}
	var line line
	if err := jsonfile.Unmarshal(text, &line); err != nil {
		return notes.Location{}, notes.Note{}, err
	}
	if pointer, err := line.checkTime(); err != nil {
		return fail(pointer, err)
	}
	encoded, note, err := line.note(maxText)
	if err != nil {
		return fail(line.blame(err))
	}
	if pointer, err := line.agrees(note); err != nil {
		return fail(pointer, err)
	}
	at := notes.Location{Latitude: note.GetLocation().GetLatitude(), Longitude: note.GetLocation().GetLongitude()}
	return at, notes.Note{Time: line.Time.UnixNano(), Encoded: encoded}, nil
}

// The years in which a note may have come in.
const (
	minYear = 1970
	maxYear = 2200
)

// checkTime returns an error if a note cannot have come in then, and the value at which that is.
func (l *line) checkTime() (jsontext.Pointer, error) {
	if l.Time == nil {
		return "", errors.New("time is missing")
	}
	if year := l.Time.UTC().Year(); year < minYear || year > maxYear {
		return "/time", fmt.Errorf("time: %v is not between the years %d and %d", l.Time, minYear, maxYear)
	}
	return "", nil
}

// note returns the note of a line, and what it is on the wire.
func (l *line) note(maxText int) ([]byte, *routeguide.RouteNote, error) {
	encoded, err := l.encode()
	if err != nil {
		return nil, nil, err
	}
	var note routeguide.RouteNote
	if err := proto.Unmarshal(encoded, &note); err != nil {
		return nil, nil, err
	}
	if err := validate.Note(&note); err != nil {
		return nil, nil, err
	}
	return encoded, &note, validate.Length(&note, len(encoded), maxText)
}

// blame returns err, and the value in which the note breaks a rule.
func (l *line) blame(err error) (jsontext.Pointer, error) {
	if l.Encoded != nil {
		return "/encoded", fmt.Errorf("encoded: %w", err)
	}
	if invalid, ok := errors.AsType[*validate.Error](err); ok {
		field, _, _ := strings.Cut(invalid.Field, ".")
		return jsontext.Pointer("").AppendToken(field), err
	}
	return "", err
}

// agrees returns an error if the line says something else than the note that it has encoded, and the value that does:
// an edit of the one would be lost silently.
func (l *line) agrees(note *routeguide.RouteNote) (jsontext.Pointer, error) {
	const remedy = "%s: says something else than encoded: change both, or leave encoded out"
	at := note.GetLocation()
	if l.Location != nil && *l.Location != (location{at.GetLatitude(), at.GetLongitude()}) {
		return "/location", fmt.Errorf(remedy, "location")
	}
	if l.Message != nil && *l.Message != note.GetMessage() {
		return "/message", fmt.Errorf(remedy, "message")
	}
	return "", nil
}
