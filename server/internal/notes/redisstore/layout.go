package redisstore

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

// The data model. The record of the store says how many partitions there are:
//
//	routeguide:store                "layout=2 partitions=64"
//
// The keys of a partition have its number as their hash tag, so that they are in one slot of a cluster, and one
// script writes all that belongs together. z is the number of a location in Z-order, 8 bytes big-endian, and
// SEQUENCE-TOKEN the ID of a batch of changes: the number of its last change, and a random number, which tells it
// from another batch with that number that was written after Redis had lost the first one.
//
//	routeguide:{NUMBER}:partition   hash: lineage, and last, the ID of the last batch
//	routeguide:{NUMBER}:changes     stream: SEQUENCE-TOKEN c=z position z position ..., 8 bytes each
//	routeguide:{NUMBER}:index       sorted set: z of the locations that have notes, all with score 0
//	routeguide:{NUMBER}:log:z       list: note, note and so on, after the base if there is one
//	routeguide:{NUMBER}:id:zID      string: position, time and hash of the note with that ID; it expires
//
// A note is its time, 8 bytes, the length of its ID, 1 byte, its ID, and the encoded note. Its position is its
// number in the list plus the base, 8 bytes, the number of notes forgotten: there is none before the first one is. The
// base stays when every note is forgotten, so that no position is reused.
const (
	layoutVersion     = 2
	defaultPartitions = 16
	maxPartitions     = 1024

	recordKey    = "routeguide:store"
	recordFormat = "layout=%d partitions=%d"

	// The layout before, which had no record and no partitions.
	firstLayoutPattern = "routeguide:{*,*}"
	firstLayoutCommit  = "49afcf0"

	zSize      = 8
	changeSize = zSize + 8 // size of a change in an entry of the stream
	headSize   = 8 + 1     // size of a note before its ID
	hashSize   = 16        // size of the hash of a note that has an ID
	firstSize  = 8 + 8 + hashSize
)

// partitionOf returns the partition of a location: the finalizer of MurmurHash3 spreads neighbours.
func partitionOf(z uint64, partitions int) int {
	hash := z
	hash = (hash ^ hash>>33) * 0xff51afd7ed558ccd
	hash = (hash ^ hash>>33) * 0xc4ceb9fe1a85ec53
	return int((hash ^ hash>>33) % uint64(partitions))
}

// keys are the keys of a partition.
type keys struct {
	partition, changes, index string
	probe                     string // is left without data
	channel                   string // of sharded pub/sub
	logs, ids                 string // prefixes
}

func keysOf(partition int) keys {
	prefix := "routeguide:{" + strconv.Itoa(partition) + "}:"
	return keys{
		partition: prefix + "partition",
		changes:   prefix + "changes",
		index:     prefix + "index",
		probe:     prefix + "probe",
		channel:   prefix + "wake",
		logs:      prefix + "log:",
		ids:       prefix + "id:",
	}
}

func (k *keys) log(z uint64) string {
	return k.logs + encodeZ(z)
}

func (k *keys) id(z uint64, id string) string {
	return k.ids + encodeZ(z) + id
}

func encodeZ(z uint64) string {
	return string(binary.BigEndian.AppendUint64(make([]byte, 0, zSize), z))
}

// encode returns the element of a list for a note.
func encode(note notes.Note) string {
	element := make([]byte, 0, headSize+len(note.ID)+len(note.Encoded))
	element = binary.BigEndian.AppendUint64(element, uint64(note.Time))
	element = append(element, byte(len(note.ID)))
	element = append(element, note.ID...)
	return rueidis.BinaryString(append(element, note.Encoded...))
}

// decode returns the note of an element of a list. Its Encoded aliases the element.
func decode(element []byte, position notes.Position) (notes.Note, error) {
	if len(element) <= headSize || len(element) <= headSize+int(element[8]) {
		return notes.Note{}, fmt.Errorf("%w: a note has %d bytes", notes.ErrDamaged, len(element))
	}
	end := headSize + int(element[8])
	return notes.Note{
		Position: position,
		Time:     int64(binary.BigEndian.Uint64(element)),
		ID:       string(element[headSize:end]),
		Encoded:  element[end:],
	}, nil
}

// hashOf returns the hash that tells notes with one ID apart.
func hashOf(encoded []byte) string {
	sum := sha256.Sum256(encoded)
	return string(sum[:hashSize])
}

// parseFirst decodes what is kept of the first note with an ID.
func parseFirst(value string) (notes.Receipt, error) {
	if len(value) != firstSize {
		return notes.Receipt{}, fmt.Errorf("%w: an ID has %d bytes", notes.ErrDamaged, len(value))
	}
	return notes.Receipt{
		Position: notes.Position(binary.BigEndian.Uint64([]byte(value))),
		Time:     int64(binary.BigEndian.Uint64([]byte(value[8:]))),
	}, nil
}

// sequenceOf returns the number of the last change of a batch, and 0 for no batch.
func sequenceOf(id string) (notes.Sequence, error) {
	if id == "" {
		return 0, nil
	}
	number, _, _ := strings.Cut(id, "-")
	sequence, err := strconv.ParseUint(number, 10, 64)
	if err != nil || sequence == 0 {
		return 0, fmt.Errorf("%w: a batch of changes has the ID %q", notes.ErrDamaged, id)
	}
	return notes.Sequence(sequence), nil
}

// parseChanges decodes the changes of a batch, without their notes.
func parseChanges(id, packed string) ([]notes.Change, error) {
	last, err := sequenceOf(id)
	if err != nil {
		return nil, err
	}
	count := len(packed) / changeSize
	if count == 0 || len(packed)%changeSize != 0 || notes.Sequence(count) > last {
		return nil, fmt.Errorf("%w: the batch of changes %s has %d bytes", notes.ErrDamaged, id, len(packed))
	}
	changes := make([]notes.Change, count)
	for i := range changes {
		change := []byte(packed[i*changeSize:][:changeSize])
		changes[i] = notes.Change{
			Sequence: last - notes.Sequence(count-1-i),
			Location: zorder.Location(binary.BigEndian.Uint64(change)),
			Note:     notes.Note{Position: notes.Position(binary.BigEndian.Uint64(change[zSize:]))},
		}
	}
	return changes, nil
}
