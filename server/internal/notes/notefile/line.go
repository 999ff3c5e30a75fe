// Package notefile is the file in which notes move from one store to another, and in which people look
// at them: newline-delimited JSON, one note a line, the notes of a location together and in their
// order. It knows the store of notes and the message that a note is.
package notefile

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/strictjson"
	"example.com/routeguide/server/internal/validate"
)

// line is one note. Its names are those of the contract, but for those that the contract lacks.
type line struct {
	Location *location `json:"location"`
	Message  string    `json:"message"`
	// Time is when the note came in, in RFC 3339 with nanoseconds, UTC.
	Time time.Time `json:"time"`
	// Encoded is the note as the client sent it, if that says more than location and message do.
	Encoded []byte `json:"encoded,omitempty"`
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
	line := line{
		Location: &location{at.Latitude, at.Longitude},
		Message:  note.GetMessage(),
		Time:     time.Unix(0, kept.Time).UTC(),
	}
	again, err := encode(&line)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, kept.Encoded) {
		line.Encoded = kept.Encoded
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err = encoder.Encode(line)
	return text.Bytes(), err
}

// encode returns what location and message of a line are on the wire.
func encode(line *line) ([]byte, error) {
	note := &routeguide.RouteNote{Message: line.Message}
	if line.Location != nil {
		note.Location = &routeguide.Point{Latitude: line.Location.Latitude, Longitude: line.Location.Longitude}
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(note)
}

// unmarshal returns the note of a line, which keeps every rule that RouteChat has, with texts of up to maxText bytes (0
// is no bound). A coordinate or message that is left out is 0 or empty, as in RouteChat.
func unmarshal(text []byte, maxText int) (notes.Location, notes.Note, error) {
	fail := func(err error) (notes.Location, notes.Note, error) { return notes.Location{}, notes.Note{}, err }
	whole, err := strictjson.Parse(text)
	if err != nil {
		return fail(err)
	}
	members, err := whole.Object("location", "message", "time", "encoded")
	if err != nil {
		return fail(err)
	}
	came, err := parseTime(whole, members)
	if err != nil {
		return fail(err)
	}
	line, err := parseLine(members)
	if err != nil {
		return fail(err)
	}
	encoded, err := line.Encoded, error(nil)
	if encoded == nil {
		encoded, err = encode(&line)
	}
	var note routeguide.RouteNote
	if err == nil {
		err = proto.Unmarshal(encoded, &note)
	}
	if err == nil {
		err = validate.Note(&note)
	}
	if err == nil {
		err = validate.Length(&note, len(encoded), maxText)
	}
	if err != nil {
		return fail(blame(err, whole, members))
	}
	if err := line.agrees(members, &note); err != nil {
		return fail(err)
	}
	at := notes.Location{Latitude: note.GetLocation().GetLatitude(), Longitude: note.GetLocation().GetLongitude()}
	return at, notes.Note{Time: came.UnixNano(), Encoded: encoded}, nil
}

// blame returns err as one at the member in which the note breaks a rule.
func blame(err error, whole strictjson.Value, members map[string]strictjson.Value) error {
	if encoded, there := members["encoded"]; there {
		return encoded.Errorf("%w", err)
	}
	if invalid, ok := errors.AsType[*validate.Error](err); ok {
		field, _, _ := strings.Cut(invalid.Field, ".")
		if member, there := members[field]; there {
			return member.At(err)
		}
	}
	return whole.At(err)
}

// The years in which a note may have come in.
const (
	minYear = 1970
	maxYear = 2200
)

func parseTime(whole strictjson.Value, members map[string]strictjson.Value) (time.Time, error) {
	member, there := members["time"]
	if !there {
		return time.Time{}, whole.Errorf("time is missing")
	}
	text, err := member.Text()
	if err != nil {
		return time.Time{}, err
	}
	var came time.Time
	if err := came.UnmarshalText([]byte(text)); err != nil {
		return time.Time{}, member.Errorf("want RFC 3339, such as 2026-01-02T03:04:05Z: %w", err)
	}
	if year := came.UTC().Year(); year < minYear || year > maxYear {
		return time.Time{}, member.Errorf("%v is not between the years %d and %d", came, minYear, maxYear)
	}
	return came, nil
}

// parseLine returns what members say but for the time.
func parseLine(members map[string]strictjson.Value) (line line, err error) {
	if member, there := members["location"]; there {
		coordinates, err := member.Int32s("latitude", "longitude")
		if err != nil {
			return line, err
		}
		line.Location = &location{coordinates[0], coordinates[1]}
	}
	if member, there := members["message"]; there {
		if line.Message, err = member.Text(); err != nil {
			return line, err
		}
	}
	if member, there := members["encoded"]; there {
		text, err := member.Text()
		if err != nil {
			return line, err
		}
		if line.Encoded, err = base64.StdEncoding.Strict().DecodeString(text); err != nil {
			return line, member.Errorf("want Base64: %w", err)
		}
	}
	return line, nil
}

// agrees returns an error if the line says something else than the note that it has encoded: an edit of the one
// would be lost silently.
func (l *line) agrees(members map[string]strictjson.Value, note *routeguide.RouteNote) error {
	const remedy = "says something else than encoded: change both, or leave encoded out"
	at := note.GetLocation()
	if member, there := members["location"]; there && *l.Location != (location{at.GetLatitude(), at.GetLongitude()}) {
		return member.Errorf(remedy)
	}
	if member, there := members["message"]; there && l.Message != note.GetMessage() {
		return member.Errorf(remedy)
	}
	return nil
}
