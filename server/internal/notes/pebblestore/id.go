package pebblestore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

// IDs are kept by parts of days, so that all of a part expire with one deletion of a range. A note's ID is in the part of
// its time. The ID of a note that is repeated is searched in the parts of notes.IDLifetime before its time and, in case the
// clock was set back, in the part after it.
const (
	dayPart   = 12 * time.Hour
	partsBack = int64(notes.IDLifetime / dayPart)
)

func dayPartOf(time int64) int64 {
	return max(time, 0) / int64(dayPart)
}

// knows returns whether the ID of a note of a time is known to a note of another time.
func knows(first, again int64) bool {
	later := dayPartOf(again) - dayPartOf(first)
	return later >= -1 && later <= partsBack
}

func idKey(part int64, z uint64, id string) []byte {
	key := binary.BigEndian.AppendUint32([]byte{idTag}, uint32(max(part, 0)))
	return append(binary.BigEndian.AppendUint64(key, z), id...)
}

// identified is the first note with an ID.
type identified struct {
	receipt notes.Receipt
	hash    [16]byte // of the encoded note
}

func hashOf(encoded []byte) [16]byte {
	sum := sha256.Sum256(encoded)
	return [16]byte(sum[:16])
}

func newIdentified(note notes.Note) identified {
	return identified{notes.Receipt{Position: note.Position, Time: note.Time}, hashOf(note.Encoded)}
}

func (i identified) value() []byte {
	value := binary.BigEndian.AppendUint64(nil, uint64(i.receipt.Position))
	value = binary.BigEndian.AppendUint64(value, uint64(i.receipt.Time))
	return append(value, i.hash[:]...)
}

// findID returns the first note with the ID of a note.
func findID(db *pebble.DB, z uint64, note notes.Note) (first identified, found bool, err error) {
	part := dayPartOf(note.Time)
	for candidate := part + 1; candidate >= part-partsBack && candidate >= 0; candidate-- {
		value, closer, err := db.Get(idKey(candidate, z, note.ID))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return first, false, damaged(err)
		}
		value = bytes.Clone(value)
		if err := closer.Close(); err != nil {
			return first, false, err
		}
		if len(value) != 8+8+16 {
			return first, false, fmt.Errorf("%w: an id at %v has %d bytes", notes.ErrDamaged, zorder.Location(z), len(value))
		}
		first.receipt.Position = notes.Position(binary.BigEndian.Uint64(value))
		first.receipt.Time = int64(binary.BigEndian.Uint64(value[8:]))
		copy(first.hash[:], value[16:])
		return first, true, nil
	}
	return first, false, nil
}

// expireIDs deletes the IDs that cannot be asked for any more.
func expireIDs(batch *pebble.Batch, now int64) error {
	return batch.DeleteRange([]byte{idTag}, idKey(dayPartOf(now)-partsBack-1, 0, "")[:epochSize], nil)
}
