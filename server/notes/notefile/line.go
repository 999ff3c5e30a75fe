// Package notefile is the file in which notes move from one store to another, and in which people look
// at them: newline-delimited JSON, one note a line, the notes of a location together and in their
// order. It knows the store of notes and the message that a note is.
package notefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/validate"
)

// line is one note. Its names are those of the contract, but for those that the contract lacks.
type line struct {
	Location *location `json:"location"`
	Message  string    `json:"message"`
	// Time is when the note came in, in RFC 3339 with nanoseconds, UTC.
	Time time.Time `json:"time"`
	// Encoded is the note as the client sent it, if that says more than location and message do.
	// They are not looked at then.
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
	return proto.MarshalOptions{Deterministic: true}.Marshal(&routeguide.RouteNote{
		Location: &routeguide.Point{Latitude: line.Location.Latitude, Longitude: line.Location.Longitude},
		Message:  line.Message,
	})
}

// unmarshal returns the note of a line.
func unmarshal(text []byte) (notes.Location, notes.Note, error) {
	fail := func(err error) (notes.Location, notes.Note, error) { return notes.Location{}, notes.Note{}, err }
	var line line
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&line); err != nil {
		return fail(err)
	}
	if decoder.More() {
		return fail(errors.New("there is more than one JSON object"))
	}
	if line.Time.IsZero() || line.Time.Year() < 1970 || line.Time.Year() > 2200 {
		return fail(fmt.Errorf("time is missing, or not of our age: %v", line.Time))
	}
	encoded := line.Encoded
	if encoded == nil {
		if line.Location == nil {
			return fail(errors.New("location is missing"))
		}
		var err error
		if encoded, err = encode(&line); err != nil {
			return fail(err)
		}
	}
	var note routeguide.RouteNote
	if err := proto.Unmarshal(encoded, &note); err != nil {
		return fail(fmt.Errorf("encoded: %w", err))
	}
	if err := validate.Note(&note); err != nil {
		return fail(err)
	}
	at := notes.Location{Latitude: note.GetLocation().GetLatitude(), Longitude: note.GetLocation().GetLongitude()}
	return at, notes.Note{Time: line.Time.UnixNano(), Encoded: encoded}, nil
}
