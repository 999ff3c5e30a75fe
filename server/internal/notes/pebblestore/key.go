package pebblestore

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
)

// The key space. A note's key is its location and its position: a log is one contiguous range of keys, in its
// order.
//
//	'n' latitude(4) longitude(4) position(8) -> time(8) encoded note
//	'p'                                      -> last position assigned(8)
//
// Numbers are big-endian. The sign bit of a coordinate is flipped, so that keys sort by signed value.
const (
	noteTag     = 'n'
	lastTag     = 'p'
	prefixSize  = 1 + 4 + 4
	keySize     = prefixSize + 8
	timeSize    = 8
	flippedSign = 1 << 31
)

var lastKey = []byte{lastTag}

func appendPrefix(key []byte, location notes.Location) []byte {
	key = append(key, noteTag)
	key = binary.BigEndian.AppendUint32(key, uint32(location.Latitude)^flippedSign)
	return binary.BigEndian.AppendUint32(key, uint32(location.Longitude)^flippedSign)
}

func appendKey(key []byte, location notes.Location, position notes.Position) []byte {
	return binary.BigEndian.AppendUint64(appendPrefix(key, location), uint64(position))
}

func parseKey(key []byte) (notes.Location, notes.Position, error) {
	if len(key) != keySize || key[0] != noteTag {
		return notes.Location{}, 0, fmt.Errorf("%w: unexpected key %x", notes.ErrDamaged, key)
	}
	return notes.Location{
		Latitude:  int32(binary.BigEndian.Uint32(key[1:]) ^ flippedSign),
		Longitude: int32(binary.BigEndian.Uint32(key[5:]) ^ flippedSign),
	}, notes.Position(binary.BigEndian.Uint64(key[prefixSize:])), nil
}

func appendValue(value []byte, note notes.Note) []byte {
	return append(binary.BigEndian.AppendUint64(value, uint64(note.Time)), note.Encoded...)
}

// parseNote decodes a note. Its Encoded aliases value.
func parseNote(key, value []byte) (notes.Location, notes.Note, error) {
	location, position, err := parseKey(key)
	if err == nil && len(value) <= timeSize {
		err = fmt.Errorf("%w: the value of a note at %v has %d bytes", notes.ErrDamaged, location, len(value))
	}
	if err != nil {
		return location, notes.Note{}, err
	}
	return location, notes.Note{
		Position: position,
		Time:     int64(binary.BigEndian.Uint64(value)),
		Encoded:  value[timeSize:],
	}, nil
}

// comparer orders keys bytewise. Its Split makes the location the prefix that the bloom filters index.
var comparer = func() *pebble.Comparer {
	comparer := *pebble.DefaultComparer
	comparer.Name = "routeguide.location"
	comparer.Split = func(key []byte) int { return min(len(key), prefixSize) }
	comparer.ImmediateSuccessor = func(dst, prefix []byte) []byte {
		next := append(dst, prefix...)
		if len(prefix) < prefixSize {
			return append(next, 0)
		}
		for i := len(next) - 1; i >= len(dst); i-- {
			if next[i]++; next[i] != 0 {
				return next
			}
		}
		return append(append(dst, bytes.Repeat([]byte{0xff}, prefixSize)...), 0)
	}
	return &comparer
}()
