package live

import (
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
)

// Field numbers of proto/routeguide/v1/note_service.proto, and of what it imports.
const (
	responseNotes  protowire.Number = 1
	responseCursor protowire.Number = 2
	noteLocation   protowire.Number = 1
	noteText       protowire.Number = 2
	notePosition   protowire.Number = 3
	noteLeaveTime  protowire.Number = 4
	noteID         protowire.Number = 5
	pointLatitude  protowire.Number = 1
	pointLongitude protowire.Number = 2
	timeSeconds    protowire.Number = 1
	timeNanos      protowire.Number = 2
)

// numbersBytes is more than the size of a message of two numbers.
const numbersBytes = 24

// appendNote appends a FollowNotesResponse with one note, encoded, or nothing if the note is no RouteNote, or its ID is not UTF-8. It is done for each note that
// anybody hears, and package proto takes five times as long.
func appendNote(buffer []byte, location notes.Location, note *notes.Note) []byte {
	text, ok := validate.EncodedText(note.Encoded)
	if !ok {
		var left routeguide.RouteNote
		if err := proto.Unmarshal(note.Encoded, &left); err != nil {
			return buffer
		}
		text = []byte(left.GetMessage())
	}
	if !utf8.ValidString(note.ID) {
		return buffer
	}
	var pointArray, timeArray, positionArray [numbersBytes]byte
	point := appendNumber(pointArray[:0], pointLatitude, uint64(location.Latitude))
	point = appendNumber(point, pointLongitude, uint64(location.Longitude))
	at := time.Unix(0, note.Time)
	moment := appendNumber(timeArray[:0], timeSeconds, uint64(at.Unix()))
	moment = appendNumber(moment, timeNanos, uint64(at.Nanosecond()))
	position := appendNumber(positionArray[:0], notePosition, uint64(note.Position))

	size := sizeOfField(len(point)) + sizeOfField(len(moment)) + len(position)
	if len(text) > 0 {
		size += sizeOfField(len(text))
	}
	if len(note.ID) > 0 {
		size += sizeOfField(len(note.ID))
	}
	buffer = slices.Grow(buffer, sizeOfField(size))
	buffer = protowire.AppendVarint(protowire.AppendTag(buffer, responseNotes, protowire.BytesType), uint64(size))
	buffer = appendBytes(buffer, noteLocation, point)
	if len(text) > 0 {
		buffer = appendBytes(buffer, noteText, text)
	}
	buffer = append(buffer, position...)
	buffer = appendBytes(buffer, noteLeaveTime, moment)
	if len(note.ID) > 0 {
		buffer = appendBytes(buffer, noteID, note.ID)
	}
	return buffer
}

// sizeOfField returns the size of a field of so many bytes, whose tag has one.
func sizeOfField(length int) int { return 1 + protowire.SizeBytes(length) }

// appendBytes appends a field of bytes, even if it is empty.
func appendBytes[Bytes []byte | string](buffer []byte, number protowire.Number, value Bytes) []byte {
	buffer = protowire.AppendVarint(protowire.AppendTag(buffer, number, protowire.BytesType), uint64(len(value)))
	return append(buffer, value...)
}

// appendNumber appends a number, unless it is 0, which is the default.
func appendNumber(buffer []byte, number protowire.Number, value uint64) []byte {
	if value == 0 {
		return buffer
	}
	return protowire.AppendVarint(protowire.AppendTag(buffer, number, protowire.VarintType), value)
}
