package pebblestore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

// The key space of the old layout, in which a log was one range of keys:
//
//	'n' latitude(4) longitude(4) position(8) -> time(8) encoded note
//	'p'                                      -> last position(8)
//
// Numbers are big-endian. The sign bit of a coordinate is flipped.
const (
	oldPrefixSize  = 1 + 4 + 4
	oldKeySize     = oldPrefixSize + 8
	oldTimeSize    = 8
	oldFlippedSign = 1 << 31
)

// oldComparer is the comparer of the old layout, for scans.
var oldComparer = func() *pebble.Comparer {
	comparer := *pebble.DefaultComparer
	comparer.Name = "routeguide.location"
	comparer.Split = func(key []byte) int { return min(len(key), oldPrefixSize) }
	return &comparer
}()

// readComparerName returns the name of the comparer with which a store was written, or "" if its manifest is
// damaged. A manifest is a sequence of records, the first of which starts with a tag, and the name.
func readComparerName(fs vfs.FS, manifest string) string {
	const (
		tagComparer = 1
		maxName     = 1 << 10
	)
	file, err := fs.Open(manifest)
	if err != nil {
		return ""
	}
	defer file.Close()
	first, err := record.NewReader(file, 0).Next()
	if err != nil {
		return ""
	}
	reader := bufio.NewReader(first)
	if tag, err := binary.ReadUvarint(reader); err != nil || tag != tagComparer {
		return ""
	}
	size, err := binary.ReadUvarint(reader)
	if err != nil || size > maxName {
		return ""
	}
	name := make([]byte, size)
	if _, err := io.ReadFull(reader, name); err != nil {
		return ""
	}
	return string(name)
}

// scan calls visit for each note of the old store with a position of at least first and less than end. It visits
// them by location. The value may not be kept. It updates m.last from the record of the last position.
func (m *migration) scan(old *pebble.DB, first, end notes.Position, visit func(z uint64, position notes.Position, value []byte) error) (err error) {
	iterator, err := old.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iterator.Close()) }()
	for valid := iterator.First(); valid; valid = iterator.Next() {
		key := iterator.Key()
		if bytes.Equal(key, lastKey) {
			value, err := iterator.ValueAndErr()
			if err != nil {
				return err
			}
			if len(value) != 8 {
				return fmt.Errorf("%w: the last position has %d bytes", notes.ErrDamaged, len(value))
			}
			m.last = max(m.last, notes.Position(binary.BigEndian.Uint64(value)))
			continue
		}
		if len(key) != oldKeySize || key[0] != noteTag {
			return fmt.Errorf("%w: unexpected key %x", notes.ErrDamaged, key)
		}
		position := notes.Position(binary.BigEndian.Uint64(key[oldPrefixSize:]))
		if position < first || position >= end {
			continue
		}
		location := notes.Location{
			Latitude:  int32(binary.BigEndian.Uint32(key[1:]) ^ oldFlippedSign),
			Longitude: int32(binary.BigEndian.Uint32(key[5:]) ^ oldFlippedSign),
		}
		value, err := iterator.ValueAndErr()
		if err != nil {
			return err
		}
		if len(value) <= oldTimeSize {
			return fmt.Errorf("%w: the value of a note at %v has %d bytes", notes.ErrDamaged, location, len(value))
		}
		if err := visit(zorder.Of(location), position, value); err != nil {
			return err
		}
	}
	return nil // Close returns the error of the iterator.
}
