// Package notefile exports notes to files and imports them: newline-delimited JSON, one note per line, with
// the notes of a location contiguous and in order. It knows the store of notes and the RouteNote message.
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

// line is one note as JSON. Member names are those of the contract, plus time, id and encoded.
type line struct {
	Location *point  `json:"location"`
	Message  *string `json:"message"`
	// Time is the time of receipt, in RFC 3339 with nanoseconds, UTC.
	Time *time.Time `json:"time"`
	// ID is the ID that the client gave the note, if any.
	ID string `json:"id,omitzero"`
	// Encoded is the note as the client sent it, in Base64. It is present only if location and message do not
	// encode to it.
	Encoded *string `json:"encoded,omitzero"`
}

type point struct {
	Latitude  int32 `json:"latitude"`
	Longitude int32 `json:"longitude"`
}

// marshal returns the line of a note, with its newline.
func marshal(location notes.Location, kept notes.Note) ([]byte, error) {
	var note routeguide.RouteNote
	if err := proto.Unmarshal(kept.Encoded, &note); err != nil {
		return nil, fmt.Errorf("%w: a note at %v: %w", notes.ErrDamaged, location, err)
	}
	received := time.Unix(0, kept.Time).UTC()
	line := line{
		Location: &point{location.Latitude, location.Longitude},
		Message:  new(note.GetMessage()),
		Time:     &received,
		ID:       kept.ID,
	}
	reencoded, err := line.encode()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(reencoded, kept.Encoded) {
		line.Encoded = new(base64.StdEncoding.EncodeToString(kept.Encoded))
	}
	text, err := json.Marshal(&line)
	return append(text, '\n'), err
}

// encode returns the encoded note of a line.
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

// unmarshal parses a line and validates its note as RouteChat does, with texts of up to maxText bytes (0 is
// no limit). A missing coordinate is 0, and a missing message empty, as in RouteChat. Errors are of the type
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
	if len(line.ID) > notes.MaxID {
		return fail("/id", fmt.Errorf("id: %d bytes are more than %d", len(line.ID), notes.MaxID))
	}
	encoded, note, err := line.note(maxText)
	if err != nil {
		return fail(line.locate(err))
	}
	if pointer, err := line.agrees(note); err != nil {
		return fail(pointer, err)
	}
	location := notes.Location{Latitude: note.GetLocation().GetLatitude(), Longitude: note.GetLocation().GetLongitude()}
	return location, notes.Note{Time: line.Time.UnixNano(), ID: line.ID, Encoded: encoded}, nil
}

// The valid years of a note's time.
const (
	minYear = 1970
	maxYear = 2200
)

// checkTime returns an error if the time is missing or out of range, and the JSON pointer to it.
func (l *line) checkTime() (jsontext.Pointer, error) {
	if l.Time == nil {
		return "", errors.New("time is missing")
	}
	if year := l.Time.UTC().Year(); year < minYear || year > maxYear {
		return "/time", fmt.Errorf("time: %v is not between the years %d and %d", l.Time, minYear, maxYear)
	}
	return "", nil
}

// note returns the validated note of a line, encoded and decoded.
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

// locate returns err and the JSON pointer to the value that it is about.
func (l *line) locate(err error) (jsontext.Pointer, error) {
	if l.Encoded != nil {
		return "/encoded", fmt.Errorf("encoded: %w", err)
	}
	if invalid, ok := errors.AsType[*validate.Error](err); ok {
		field, _, _ := strings.Cut(invalid.Field, ".")
		return jsontext.Pointer("").AppendToken(field), err
	}
	return "", err
}

// agrees returns an error if location or message differ from encoded, and the JSON pointer to the one that
// does: an edit of it would be lost silently.
func (l *line) agrees(note *routeguide.RouteNote) (jsontext.Pointer, error) {
	const remedy = "%s: differs from encoded (change both, or remove encoded)"
	location := note.GetLocation()
	if l.Location != nil && *l.Location != (point{location.GetLatitude(), location.GetLongitude()}) {
		return "/location", fmt.Errorf(remedy, "location")
	}
	if l.Message != nil && *l.Message != note.GetMessage() {
		return "/message", fmt.Errorf(remedy, "message")
	}
	return "", nil
}
