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
	// Space is freed when reclaimBytes are erased, and a part of the store: freeing it writes all that
	// is left anew.
	reclaimBytes = 16 << 20
	reclaimPart  = 8
)

// oldNotes is the start of a log that is to be erased.
type oldNotes struct {
	at       notes.Location
	few      []notes.Position // all of them, if they are few
	count    int
	bytes    int
	from, to notes.Position // the first and the last
}

func (o *oldNotes) add(position notes.Position, bytes int) {
	o.bytes += bytes
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
				select {
				case err = <-done:
				case <-ctx.Done(): // The disk may be full, and the committer wait for it.
					err = context.Cause(ctx)
				}
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
	return count, s.reclaim(ctx)
}

// reclaim frees the space of what is erased, once that is much. The engine would do so only for long
// ranges, or when many more notes come.
func (s *Store) reclaim(ctx context.Context) error {
	if erased := s.committer.erased.Load(); erased == 0 || erased < max(reclaimBytes, s.Size()/reclaimPart) {
		return nil
	}
	s.committer.erased.Store(0)
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return notes.ErrClosed
	}
	return s.db.Compact(ctx, []byte{noteTag}, []byte{noteTag + 1}, false)
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
			logs[len(logs)-1].add(note.Position, keySize+len(value))
			valid = iterator.Next()
		}
		return nil
	})
	return logs, next, err
}
