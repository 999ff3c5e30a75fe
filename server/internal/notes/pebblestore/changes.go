package pebblestore

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

const (
	// replayedChanges is the number of changes, at least, that can be replayed.
	replayedChanges = 1 << 22
	// chunkChanges is the largest chunk of Changes, apart from the changes of its last group.
	chunkChanges = groupNotes
)

// changeKey returns the key of the locations of the group whose first note has a position.
func changeKey(first notes.Position) []byte {
	return binary.BigEndian.AppendUint64([]byte{changeTag}, uint64(first))
}

// Ends implements [notes.Store].
func (s *Store) Ends(context.Context) ([]notes.Sequence, error) {
	if s.isClosed() {
		return nil, notes.ErrClosed
	}
	return []notes.Sequence{notes.Sequence(s.committer.synced.Load())}, nil
}

// Changes implements [notes.Store]. It replays the last four million changes, at least.
func (s *Store) Changes(ctx context.Context, partition int, from notes.Sequence) iter.Seq2[[]notes.Change, error] {
	return func(yield func([]notes.Change, error) bool) {
		ends, err := s.Ends(ctx)
		if err == nil && (partition != 0 || from == 0 || from > ends[0]+1) {
			err = notes.ErrOutOfRange
		}
		var chunk []notes.Change
		for err == nil && from <= ends[0] {
			if err = ctx.Err(); err != nil {
				break
			}
			if chunk, err = s.replay(chunk[:0], from, ends[0]); err != nil {
				break
			}
			from += notes.Sequence(len(chunk))
			if !yield(chunk, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// replay appends at least one change, and at most chunkChanges and those of one group, up to the last one.
func (s *Store) replay(chunk []notes.Change, from, last notes.Sequence) ([]notes.Change, error) {
	s.open.RLock()
	defer s.open.RUnlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	err := s.iterateChanges(from, func(first notes.Sequence, locations []byte) bool {
		if next := from + notes.Sequence(len(chunk)); first > next {
			return false
		}
		for ; len(locations) > 0; locations = locations[8:] {
			if first >= from && first <= last {
				chunk = append(chunk, notes.Change{
					Sequence: first,
					Location: zorder.Location(binary.BigEndian.Uint64(locations)),
					Note:     notes.Note{Position: notes.Position(first)},
				})
			}
			first++
		}
		return len(chunk) < chunkChanges && first <= last
	})
	if err == nil && len(chunk) == 0 {
		err = notes.ErrOutOfRange
	}
	return chunk, err
}

// iterateChanges calls each with the changes of groups, from the one that has a number on, until it returns false: with
// the number of the first change, and the numbers of the locations in Z-order.
func (s *Store) iterateChanges(from notes.Sequence, each func(first notes.Sequence, locations []byte) bool) error {
	iterator, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{changeTag}, UpperBound: []byte{changeTag + 1}})
	if err != nil {
		return damaged(err)
	}
	defer iterator.Close()
	valid := iterator.SeekLT(changeKey(notes.Position(from) + 1))
	if !valid {
		valid = iterator.First()
	}
	for ; valid; valid = iterator.Next() {
		value, err := iterator.ValueAndErr()
		if err != nil {
			return damaged(err)
		}
		key := iterator.Key()
		if len(key) != 1+8 || len(value)%8 != 0 {
			return fmt.Errorf("%w: the changes %x have %d bytes", notes.ErrDamaged, key, len(value))
		}
		if !each(notes.Sequence(binary.BigEndian.Uint64(key[1:])), value) {
			return nil
		}
	}
	return damaged(iterator.Error())
}
