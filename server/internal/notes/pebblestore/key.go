package pebblestore

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

// The key space. Positions are consecutive over all locations, and are the numbers of changes, too. An epoch is a
// run of consecutive positions; z is the number of a location in Z-order.
//
//	'n' epoch(4) z(8) position(8) -> time(8) length of the ID(1) ID encoded note
//	'e' epoch(4)                  -> first position(8) oldest time(8), the latter once the epoch is complete
//	'c' position(8)               -> z(8) of this position and of each one after it that one group added
//	'i' day part(4) z(8) ID       -> position(8) time(8) hash of the encoded note(16)
//	'l'                           -> lineage
//	'p'                           -> last position(8) and of its epoch: bytes(8) oldest time(8)
//
// Numbers are big-endian.
const (
	noteTag    = 'n'
	epochTag   = 'e'
	changeTag  = 'c'
	idTag      = 'i'
	lineageTag = 'l'
	lastTag    = 'p'

	epochSize  = 1 + 4          // size of an epoch's key, and of the prefix of its notes
	prefixSize = epochSize + 8  // size of the prefix of a log's notes in an epoch
	keySize    = prefixSize + 8 // size of a note's key
	headSize   = 8 + 1          // size of a note's value before its ID
)

var (
	lineageKey = []byte{lineageTag}
	lastKey    = []byte{lastTag}
)

// appendEpoch appends the start of the keys of an epoch.
func appendEpoch(key []byte, tag byte, epoch uint32) []byte {
	return binary.BigEndian.AppendUint32(append(key, tag), epoch)
}

// appendPrefix appends the prefix of the keys of a location in an epoch.
func appendPrefix(key []byte, epoch uint32, z uint64) []byte {
	return binary.BigEndian.AppendUint64(appendEpoch(key, noteTag, epoch), z)
}

// appendKey appends the key of a note.
func appendKey(key []byte, epoch uint32, z uint64, position notes.Position) []byte {
	return binary.BigEndian.AppendUint64(appendPrefix(key, epoch, z), uint64(position))
}

// parseKey decodes the key of a note.
func parseKey(key []byte) (z uint64, position notes.Position, err error) {
	if len(key) != keySize || key[0] != noteTag {
		return 0, 0, fmt.Errorf("%w: unexpected key %x", notes.ErrDamaged, key)
	}
	return binary.BigEndian.Uint64(key[epochSize:]), notes.Position(binary.BigEndian.Uint64(key[prefixSize:])), nil
}

// valueSize returns the size of the value of a note.
func valueSize(note notes.Note) int {
	return headSize + len(note.ID) + len(note.Encoded)
}

// appendValue appends the value of a note, whose ID has at most 255 bytes.
func appendValue(value []byte, note notes.Note) []byte {
	value = binary.BigEndian.AppendUint64(value, uint64(note.Time))
	value = append(value, byte(len(note.ID)))
	value = append(value, note.ID...)
	return append(value, note.Encoded...)
}

// parseNote decodes a note. Its Encoded aliases value.
func parseNote(key, value []byte) (z uint64, note notes.Note, err error) {
	z, position, err := parseKey(key)
	if err != nil {
		return 0, notes.Note{}, err
	}
	if len(value) <= headSize || len(value) <= headSize+int(value[8]) {
		return z, notes.Note{}, fmt.Errorf("%w: the value of a note at %v has %d bytes", notes.ErrDamaged, zorder.Location(z), len(value))
	}
	return z, parseValue(position, value), nil
}

// parseValue decodes the valid value of a note. Its Encoded aliases value.
func parseValue(position notes.Position, value []byte) notes.Note {
	end := headSize + int(value[8])
	return notes.Note{
		Position: position,
		Time:     int64(binary.BigEndian.Uint64(value)),
		ID:       string(value[headSize:end]),
		Encoded:  value[end:len(value):len(value)],
	}
}

// comparer orders keys bytewise. Its Split makes the location in its epoch the prefix that the bloom filters index.
// The name tells this layout from others: the engine refuses a folder whose comparer has another name.
var comparer = func() *pebble.Comparer {
	comparer := *pebble.DefaultComparer
	comparer.Name = "routeguide.epoch.z-order"
	comparer.Split = func(key []byte) int {
		if len(key) > prefixSize && key[0] == noteTag {
			return prefixSize
		}
		return len(key)
	}
	comparer.ImmediateSuccessor = func(dst, prefix []byte) []byte {
		next := append(dst, prefix...)
		if len(prefix) != prefixSize || prefix[0] != noteTag {
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
