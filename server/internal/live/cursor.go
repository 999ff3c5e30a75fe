package live

import (
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"hash/fnv"
	"math"

	"example.com/routeguide/server/internal/notes"
)

// cursorVersion is the first byte of a cursor.
const cursorVersion = 1

// maxPartitions bounds the marks of a cursor that is parsed.
const maxPartitions = 1 << 12

var (
	errNoCursor    = errors.New("is no cursor of FollowNotes")
	errOtherFilter = errors.New("is of another location or rectangle")
	// errOtherStore is the error of a cursor of another store, of a store whose numbers were assigned again, or of another version.
	errOtherStore = errors.New("is of another store")
)

// cursor is where a stream of FollowNotes has come to.
type cursor struct {
	time int64 // when everything before was sent, in seconds since 1970
	// marks is the last note sent if a location is followed, and else the last changes sent, by partition.
	marks []mark
	// snapshot is the last location whose notes were sent before, while the snapshot of a rectangle is sent; else nil.
	snapshot *notes.Location
}

// Its encoding is the version, the hashes of the lineage and the filter in eight bytes each, the time, whether there is a snapshot and its
// location, the number of marks, and each with its number and check, as varints; and the CRC-32C of all that.
const (
	cursorHead = 1 + 8 + 8
	cursorTail = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// append appends a cursor for a filter, encoded, to an empty buffer.
func (c *cursor) append(encoded []byte, lineage, filter uint64) []byte {
	encoded = append(encoded, cursorVersion)
	encoded = binary.BigEndian.AppendUint64(encoded, lineage)
	encoded = binary.BigEndian.AppendUint64(encoded, filter)
	encoded = binary.AppendVarint(encoded, c.time)
	if c.snapshot == nil {
		encoded = binary.AppendUvarint(encoded, 0)
	} else {
		encoded = binary.AppendUvarint(encoded, 1)
		encoded = binary.AppendVarint(encoded, int64(c.snapshot.Latitude))
		encoded = binary.AppendVarint(encoded, int64(c.snapshot.Longitude))
	}
	encoded = binary.AppendUvarint(encoded, uint64(len(c.marks)))
	for _, mark := range c.marks {
		encoded = binary.AppendUvarint(encoded, mark.number)
		encoded = binary.BigEndian.AppendUint32(encoded, mark.check)
	}
	return binary.BigEndian.AppendUint32(encoded, crc32.Checksum(encoded, castagnoli))
}

// parseCursor parses a cursor for a filter. The error is errNoCursor, errOtherFilter or errOtherStore.
func parseCursor(encoded []byte, lineage, filter uint64) (c cursor, err error) {
	body := len(encoded) - cursorTail
	if body < cursorHead || crc32.Checksum(encoded[:body], castagnoli) != binary.BigEndian.Uint32(encoded[body:]) {
		return c, errNoCursor
	}
	if encoded[0] != cursorVersion {
		return c, errOtherStore
	}
	if binary.BigEndian.Uint64(encoded[9:]) != filter {
		return c, errOtherFilter
	}
	if binary.BigEndian.Uint64(encoded[1:]) != lineage {
		return c, errOtherStore
	}
	parser := parser{rest: encoded[cursorHead:body]}
	c.time = parser.varint()
	if parser.uvarint() == 1 {
		latitude, longitude := parser.varint(), parser.varint()
		if int64(int32(latitude)) != latitude || int64(int32(longitude)) != longitude {
			return c, errNoCursor
		}
		c.snapshot = &notes.Location{Latitude: int32(latitude), Longitude: int32(longitude)}
	}
	count := parser.uvarint()
	if count > maxPartitions {
		return c, errNoCursor
	}
	for range count {
		c.marks = append(c.marks, mark{parser.uvarint(), parser.uint32()})
	}
	if parser.failed || len(parser.rest) > 0 {
		return c, errNoCursor
	}
	return c, nil
}

// parser reads numbers. After a failure it returns zeros.
type parser struct {
	rest   []byte
	failed bool
}

func (p *parser) skip(n int) {
	if n <= 0 || n > len(p.rest) {
		p.rest, p.failed = nil, true
		return
	}
	p.rest = p.rest[n:]
}

func (p *parser) uvarint() uint64 {
	value, n := binary.Uvarint(p.rest)
	p.skip(n)
	return value
}

func (p *parser) varint() int64 {
	value, n := binary.Varint(p.rest)
	p.skip(n)
	return value
}

func (p *parser) uint32() (value uint32) {
	if len(p.rest) >= 4 {
		value = binary.BigEndian.Uint32(p.rest)
	}
	p.skip(4)
	return value
}

// Filter is what is followed: a location or a rectangle.
type Filter struct {
	Location  *notes.Location
	Rectangle notes.Rectangle // if Location is nil
}

// hash identifies a filter in cursors.
func (f Filter) hash() uint64 {
	sum := fnv.New64a()
	if f.Location != nil {
		writeNumbers(sum, 0, coordinate(f.Location.Latitude), coordinate(f.Location.Longitude))
	} else {
		r := f.Rectangle
		writeNumbers(sum, 1, coordinate(r.South), coordinate(r.West), coordinate(r.North), coordinate(r.East))
	}
	return sum.Sum64()
}

func coordinate(value int32) uint64 { return uint64(uint32(value) ^ math.MaxInt32) }

// hashOf identifies a lineage in cursors.
func hashOf(lineage string) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(lineage)) // It cannot fail.
	return sum.Sum64()
}

func writeNumbers(sum hash.Hash, numbers ...uint64) {
	for _, number := range numbers {
		_, _ = sum.Write(binary.BigEndian.AppendUint64(nil, number)) // It cannot fail.
	}
}
