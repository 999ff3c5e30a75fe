package pebblestore

import (
	"context"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/notes/internal/inbox"
)

const (
	// fewNotes is how many notes are erased one by one rather than as a range.
	fewNotes = 4
	// forgetAtOnce is how many notes are looked at with one iterator, which keeps what is deleted
	// meanwhile on the disk.
	forgetAtOnce = 16 << 10
)

// oldNotes is the start of a log that is to be erased.
type oldNotes struct {
	at       notes.Location
	few      []notes.Position // all of them, if they are few
	count    int
	from, to notes.Position // the first and the last
}

func (o *oldNotes) add(position notes.Position) {
	if o.count == 0 {
		o.from = position
	}
	o.to = position
	o.count++
	if o.count <= fewNotes {
		o.few = append(o.few, position)
	}
}

// erase adds to a batch what erases the notes.
func (o *oldNotes) erase(batch *pebble.Batch) error {
	if o.count > fewNotes {
		return batch.DeleteRange(appendKey(nil, o.at, o.from), appendKey(nil, o.at, o.to+1), nil)
	}
	for _, position := range o.few {
		if err := batch.Delete(appendKey(nil, o.at, position), nil); err != nil {
			return err
		}
	}
	return nil
}

// Forget implements [notes.Store]. It looks at the first notes of every location.
func (s *Store) Forget(ctx context.Context, before int64) (int, error) {
	count := 0
	for next := []byte{noteTag}; next != nil; {
		if err := ctx.Err(); err != nil {
			return count, err
		}
		logs, rest, err := s.oldNotes(next, before)
		if err != nil {
			return count, err
		}
		if len(logs) > 0 {
			done := make(chan error, 1)
			err := s.committer.inbox.Put(ctx, inbox.Open, work{erase: &erasure{logs, done}}, 0)
			if err == nil {
				err = <-done
			}
			if err != nil {
				return count, err
			}
		}
		for i := range logs {
			count += logs[i].count
		}
		next = rest
	}
	if count > 0 {
		// The engine frees space when it merges what is erased with what erases it, which is
		// only on the disk after a flush. Without more notes that might not come for long.
		return count, s.flush()
	}
	return 0, nil
}

// flush starts to write what is in memory into tables.
func (s *Store) flush() error {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return notes.ErrClosed
	}
	_, err := s.db.AsyncFlush()
	return err
}

// oldNotes returns some notes from a key on that came in before a time, and the key from which on
// there may be more: nil if there are none.
func (s *Store) oldNotes(from []byte, before int64) (logs []oldNotes, next []byte, err error) {
	err = s.iterateKeys(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{noteTag + 1}}, func(iterator *pebble.Iterator) error {
		looked := 0
		for valid := iterator.First(); valid; {
			if looked++; looked > forgetAtOnce {
				next = append(next, iterator.Key()...)
				return nil
			}
			value, err := iterator.ValueAndErr()
			if err != nil {
				return err
			}
			at, note, err := parseNote(iterator.Key(), value)
			if err != nil {
				return err
			}
			if note.Time >= before {
				valid = iterator.NextPrefix()
				continue
			}
			if len(logs) == 0 || logs[len(logs)-1].at != at {
				logs = append(logs, oldNotes{at: at})
			}
			logs[len(logs)-1].add(note.Position)
			valid = iterator.Next()
		}
		return nil
	})
	return logs, next, err
}
