package memorystore

import (
	"encoding/binary"

	"example.com/routeguide/server/internal/notes"
)

// An arena keeps notes as bytes in blocks. The bytes of a note are never changed, so that readers use them without a
// lock; a note that is removed takes up space until its block is not used any more. A place is the number of a block and
// the offset in it.
type arena struct {
	blocks      [][]byte
	kept, waste int // bytes of notes that are there, and of notes that were removed
}

const (
	// Blocks double in size from the smallest to the largest.
	minArenaBlock = 4 << 10
	maxArenaBlock = 256 << 10
	// arenaHead is the size of position(8), time(8), length of the ID(1) and length of the encoded note(4).
	arenaHead  = 8 + 8 + 1 + 4
	offsetBits = 32
)

// add appends a note and returns its place.
func (a *arena) add(note *notes.Note) (place uint64) {
	size := arenaHead + len(note.ID) + len(note.Encoded)
	a.kept += size
	last := len(a.blocks) - 1
	if last < 0 || cap(a.blocks[last])-len(a.blocks[last]) < size {
		next := minArenaBlock << min(len(a.blocks), 6)
		a.blocks = append(a.blocks, make([]byte, 0, max(size, min(next, maxArenaBlock))))
		last++
	}
	block := a.blocks[last]
	place = uint64(last)<<offsetBits | uint64(len(block))
	block = binary.LittleEndian.AppendUint64(block, uint64(note.Position))
	block = binary.LittleEndian.AppendUint64(block, uint64(note.Time))
	block = append(block, byte(len(note.ID)))
	block = binary.LittleEndian.AppendUint32(block, uint32(len(note.Encoded)))
	block = append(block, note.ID...)
	a.blocks[last] = append(block, note.Encoded...)
	return place
}

// record returns the bytes from a note on.
func (a *arena) record(place uint64) []byte {
	return a.blocks[place>>offsetBits][uint32(place):]
}

func (a *arena) time(place uint64) int64 {
	return int64(binary.LittleEndian.Uint64(a.record(place)[8:]))
}

// note returns the note at a place.
func (a *arena) note(place uint64) notes.Note {
	record := a.record(place)
	start := arenaHead + int(record[16])
	end := start + int(binary.LittleEndian.Uint32(record[17:]))
	return notes.Note{
		Position: notes.Position(binary.LittleEndian.Uint64(record)),
		Time:     a.time(place),
		ID:       string(record[arenaHead:start]),
		Encoded:  record[start:end:end],
	}
}

// remove counts a note as waste.
func (a *arena) remove(place uint64) {
	record := a.record(place)
	size := arenaHead + int(record[16]) + int(binary.LittleEndian.Uint32(record[17:]))
	a.kept -= size
	a.waste += size
}

// wasteful returns whether most of the arena is waste.
func (a *arena) wasteful() bool { return a.waste > a.kept+minArenaBlock }
