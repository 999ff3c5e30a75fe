package pebblestore

import (
	"context"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/queue"
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
	at   notes.Location
	from notes.Position   // of the first note
	few  []notes.Position // of all notes, if they are few
	last notes.Position   // of the last note that is old

	count, bytes int // of the notes up to the last old one
	// future and futureBytes are of the notes behind it. They go if an old one is behind them.
	future, futureBytes int
}

func (o *oldNotes) add(position notes.Position, bytes int, age notes.Age) {
	looked := o.count + o.future
	if looked == 0 {
		o.from = position
	}
	if looked == len(o.few) && looked < fewNotes {
		o.few = append(o.few, position)
	}
	o.future++
	o.futureBytes += bytes
	if age == notes.Old {
		o.last = position
		o.count, o.bytes = o.count+o.future, o.bytes+o.futureBytes
		o.future, o.futureBytes = 0, 0
	}
}

// rest returns what is left when the notes up to the last old one are erased.
func (o *oldNotes) rest() oldNotes {
	return oldNotes{at: o.at, from: o.last + 1, future: o.future, futureBytes: o.futureBytes}
}

// erase adds to a batch what erases the notes up to the last old one.
func (o *oldNotes) erase(batch *pebble.Batch) error {
	if o.count > len(o.few) {
		return batch.DeleteRange(appendKey(nil, o.at, o.from), appendKey(nil, o.at, o.last+1), nil)
	}
	for _, position := range o.few[:o.count] {
		if err := batch.Delete(appendKey(nil, o.at, position), nil); err != nil {
			return err
		}
	}
	return nil
}

// Forget implements [notes.Store]. It looks at the first notes of every location.
func (s *Store) Forget(ctx context.Context, before int64) (int, error) {
	count := 0
	for sweep := (&sweep{before: before, now: notes.Now(), next: []byte{noteTag}}); sweep.next != nil; {
		if err := ctx.Err(); err != nil {
			return count, err
		}
		logs, err := s.sweep(sweep)
		if err != nil {
			return count, err
		}
		if len(logs) > 0 {
			done := make(chan error, 1)
			err := s.committer.inbox.Put(ctx, queue.Open, work{erase: &erasure{logs, done}}, 0)
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

// sweep is one Forget on its way through the store.
type sweep struct {
	before, now int64
	next        []byte   // the key from which on there may be more; nil if there are none
	log         oldNotes // the log that next is in, as far as it was looked at and is not erased
}

// sweep looks at some notes, and returns those that are to be erased.
func (s *Store) sweep(sweep *sweep) (logs []oldNotes, err error) {
	options := &pebble.IterOptions{LowerBound: sweep.next, UpperBound: []byte{noteTag + 1}}
	log := sweep.log
	sweep.next = nil
	found := func() {
		if log.count > 0 {
			logs = append(logs, log)
		}
	}
	err = s.iterateKeys(options, func(iterator *pebble.Iterator) error {
		looked := 0
		for valid := iterator.First(); valid; {
			if looked++; looked > forgetAtOnce {
				sweep.next = append(sweep.next, iterator.Key()...)
				break
			}
			value, err := iterator.ValueAndErr()
			if err != nil {
				return err
			}
			at, note, err := parseNote(iterator.Key(), value)
			if err != nil {
				return err
			}
			if at != log.at {
				found()
				log = oldNotes{at: at}
			}
			age := notes.AgeOf(note.Time, sweep.before, sweep.now)
			if age == notes.Young {
				valid = iterator.NextPrefix()
				continue
			}
			log.add(note.Position, keySize+len(value), age)
			valid = iterator.Next()
		}
		found()
		return nil
	})
	sweep.log = log.rest()
	return logs, err
}
