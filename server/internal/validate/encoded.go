package validate

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of proto/routeguide/route_guide.proto.
const (
	noteLocation   protowire.Number = 1
	noteMessage    protowire.Number = 2
	pointLatitude  protowire.Number = 1
	pointLongitude protowire.Number = 2
)

// EncodedNote is a fast path that validates a note without decoding it. If the note is valid by [Note], and has each
// field at most once, in order, and no unknown fields, it returns the location in E7 degrees and true. False does not
// mean that the note is invalid: decode it and call [Note].
func EncodedNote(encoded []byte) (latitude, longitude int32, ok bool) {
	location, _, ok := splitNote(encoded)
	if !ok {
		return 0, 0, false
	}
	latitude, location = encodedInt32(pointLatitude, location)
	longitude, location = encodedInt32(pointLongitude, location)
	ok = len(location) == 0 &&
		latitude >= -MaxLatitude && latitude <= MaxLatitude &&
		longitude >= -MaxLongitude && longitude <= MaxLongitude
	return latitude, longitude, ok
}

// EncodedText is a fast path that returns the text of a valid note without decoding it, or false where [EncodedNote] may.
func EncodedText(encoded []byte) (text []byte, ok bool) {
	_, text, ok = splitNote(encoded)
	return text, ok
}

// splitNote returns the encoded fields of a note that has each at most once, in order, and no unknown fields.
func splitNote(encoded []byte) (location, text []byte, ok bool) {
	location, rest, ok := encodedBytes(noteLocation, encoded)
	if !ok || len(rest) == 0 {
		return location, nil, ok
	}
	text, rest, ok = encodedBytes(noteMessage, rest)
	return location, text, ok && len(rest) == 0 && utf8.Valid(text)
}

// encodedBytes returns the value of a leading bytes field, and the rest.
func encodedBytes(number protowire.Number, encoded []byte) (value, rest []byte, ok bool) {
	rest, ok = encodedTag(number, protowire.BytesType, encoded)
	if !ok {
		return nil, nil, false
	}
	value, n := protowire.ConsumeBytes(rest)
	if n < 0 {
		return nil, nil, false
	}
	return value, rest[n:], true
}

// encodedInt32 returns the value of a leading int32 field, and the rest; or 0 and all of encoded if another field
// leads.
func encodedInt32(number protowire.Number, encoded []byte) (int32, []byte) {
	rest, ok := encodedTag(number, protowire.VarintType, encoded)
	if !ok {
		return 0, encoded
	}
	value, n := protowire.ConsumeVarint(rest)
	if n < 0 {
		return 0, encoded
	}
	return int32(value), rest[n:] // Protobuf truncates, too.
}

// encodedTag returns the rest after a leading tag.
func encodedTag(number protowire.Number, kind protowire.Type, encoded []byte) ([]byte, bool) {
	if len(encoded) == 0 || encoded[0] != byte(protowire.EncodeTag(number, kind)) {
		return nil, false
	}
	return encoded[1:], true
}
