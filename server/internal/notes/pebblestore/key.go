package pebblestore

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
)

// What is in the store. A note's key is its location and its position, so that a log lies in one
// piece, in its order:
//
//	'n' latitude(4) longitude(4) position(8) -> time(8) encoded note
//	'p'                                      -> the position that was given last(8)
//
// Numbers are big-endian. The sign bit of a coordinate is flipped, so that its bytes sort as it does.
const (
	noteTag     = 'n'
	lastTag     = 'p'
	prefixSize  = 1 + 4 + 4
	keySize     = prefixSize + 8
	timeSize    = 8
	flippedSign = 1 << 31
)

var lastKey = []byte{lastTag}

func appendPrefix(key []byte, at notes.Location) []byte {
	key = append(key, noteTag)
	key = binary.BigEndian.AppendUint32(key, uint32(at.Latitude)^flippedSign)
	return binary.BigEndian.AppendUint32(key, uint32(at.Longitude)^flippedSign)
}

func appendKey(key []byte, at notes.Location, position notes.Position) []byte {
	return binary.BigEndian.AppendUint64(appendPrefix(key, at), uint64(position))
}

func parseKey(key []byte) (notes.Location, notes.Position, error) {
	if len(key) != keySize || key[0] != noteTag {
		return notes.Location{}, 0, fmt.Errorf("%w: it has a key %x", notes.ErrDamaged, key)
	}
	return notes.Location{
		Latitude:  int32(binary.BigEndian.Uint32(key[1:]) ^ flippedSign),
		Longitude: int32(binary.BigEndian.Uint32(key[5:]) ^ flippedSign),
	}, notes.Position(binary.BigEndian.Uint64(key[prefixSize:])), nil
}

func appendValue(value []byte, note notes.Note) []byte {
	return append(binary.BigEndian.AppendUint64(value, uint64(note.Time)), note.Encoded...)
}

// parseNote returns the note of a key and a value, whose bytes it shares.
func parseNote(key, value []byte) (notes.Location, notes.Note, error) {
	at, position, err := parseKey(key)
	if err == nil && len(value) <= timeSize {
		err = fmt.Errorf("%w: the note at %v has %d bytes", notes.ErrDamaged, at, len(value))
	}
	if err != nil {
		return at, notes.Note{}, err
	}
	return at, notes.Note{
		Position: position,
		Time:     int64(binary.BigEndian.Uint64(value)),
		Encoded:  value[timeSize:],
	}, nil
}

// comparer orders keys by their bytes, and tells Pebble that a location is a prefix for which its
// bloom filters can answer.
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
