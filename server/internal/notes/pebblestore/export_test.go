package pebblestore

import (
	"encoding/binary"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

// WithReplayedChanges returns the options of a store that replays few changes.
func (o Options) WithReplayedChanges(count int) Options {
	o.replayedChanges = count
	return o
}

// WithEpochNotes returns the options of a store whose epochs have few notes.
func (o Options) WithEpochNotes(count int) Options {
	o.epochNotes = count
	return o
}

// GroupNotes is the largest number of notes of a commit group.
const GroupNotes = groupNotes

// DB returns the engine, so that tests can damage what it has.
func (s *Store) DB() *pebble.DB { return s.db }

// ChangeKey is the key of the changes of a group.
var ChangeKey = changeKey

// IDKey returns the key of the ID of a note.
func IDKey(location notes.Location, note notes.Note) []byte {
	return idKey(dayPartOf(note.Time), zorder.Of(location), note.ID)
}

// NoteKey returns the key of a note in an epoch.
func NoteKey(epoch uint32, location notes.Location, position notes.Position) []byte {
	return appendKey(nil, epoch, zorder.Of(location), position)
}

// MigrateInPasses migrates a folder. It writes two epochs, with an even number of notes, in each pass.
func MigrateInPasses(options Options) error {
	options.Logger = slog.New(slog.DiscardHandler)
	log := &engineLog{logger: options.Logger, fatal: options.Fatal}
	log.folder = newFolder(options.Dir, log.end)
	return migrate(options, log, migrationSizes{runPositions: 2, passes: 1 << 20, passEpochs: 2, memTableBytes: 256 << 10})
}

// EpochOf returns the number of the epoch of each note of a store by its position.
func EpochOf(store *Store) (map[notes.Position]uint32, error) {
	epochs := make(map[notes.Position]uint32)
	iterator, err := store.db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	defer iterator.Close()
	for valid := iterator.SeekGE([]byte{noteTag}); valid && iterator.Key()[0] == noteTag; valid = iterator.Next() {
		_, position, err := parseKey(iterator.Key())
		if err != nil {
			return nil, err
		}
		epochs[position] = binary.BigEndian.Uint32(iterator.Key()[1:])
	}
	return epochs, iterator.Error()
}
