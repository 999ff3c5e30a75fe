package pebblestore

import (
	"context"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/queue"
)

const (
	// maxPointDeletes is the largest number of notes of a log that are deleted by key rather than by range.
	maxPointDeletes = 4
	// sweepNotes is the number of notes read with one iterator. An open iterator keeps deleted notes on the
	// disk.
	sweepNotes = 16 << 10
	// Compaction starts when the deleted notes have reclaimBytes bytes and at least 1/reclaimPart of the size
	// of the store: it rewrites all notes that are left.
	reclaimBytes = 16 << 20
	reclaimPart  = 8
)

// oldNotes is the prefix of a log that Forget deletes.
type oldNotes struct {
	location  notes.Location
	from      notes.Position   // first note
	positions []notes.Position // first maxPointDeletes notes
	last      notes.Position   // last old note

	count, bytes int // notes, and their bytes, up to the last old note
	// future and futureBytes are the notes after the last old one, and their bytes. They are dated in the
	// future, and are deleted once an old note follows.
	future, futureBytes int
}

func (o *oldNotes) add(position notes.Position, bytes int, age notes.Age) {
	scanned := o.count + o.future
	if scanned == 0 {
		o.from = position
	}
	if scanned == len(o.positions) && scanned < maxPointDeletes {
		o.positions = append(o.positions, position)
	}
	o.future++
	o.futureBytes += bytes
	if age == notes.Old {
		o.last = position
		o.count, o.bytes = o.count+o.future, o.bytes+o.futureBytes
		o.future, o.futureBytes = 0, 0
	}
}

// rest returns what is left once the notes up to the last old one are deleted.
func (o *oldNotes) rest() oldNotes {
	return oldNotes{location: o.location, from: o.last + 1, future: o.future, futureBytes: o.futureBytes}
}

// erase adds the deletion of the notes up to the last old one to a batch.
func (o *oldNotes) erase(batch *pebble.Batch) error {
	if o.count > len(o.positions) {
		return batch.DeleteRange(appendKey(nil, o.location, o.from), appendKey(nil, o.location, o.last+1), nil)
	}
	for _, position := range o.positions[:o.count] {
		if err := batch.Delete(appendKey(nil, o.location, position), nil); err != nil {
			return err
		}
	}
	return nil
}

// Forget implements [notes.Store]. It reads the first notes of every location.
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
			err := s.committer.queue.Put(ctx, queue.Open, work{erase: &erasure{logs, done}}, 0)
			if err == nil {
				select {
				case err = <-done:
				case <-ctx.Done(): // The committer may wait for a full disk.
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

// reclaim compacts the store once enough is deleted. By itself, the engine compacts only after long range
// deletes or many further writes.
func (s *Store) reclaim(ctx context.Context) error {
	if erased := s.committer.erasedBytes.Load(); erased == 0 || erased < max(reclaimBytes, s.Size()/reclaimPart) {
		return nil
	}
	s.committer.erasedBytes.Store(0)
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return notes.ErrClosed
	}
	return s.db.Compact(ctx, []byte{noteTag}, []byte{noteTag + 1}, false)
}

// sweep is the cursor of one Forget.
type sweep struct {
	before, now int64    // arguments of notes.AgeOf
	next        []byte   // key to continue at; nil at the end
	log         oldNotes // the log of next: notes read and not deleted so far
}

// sweep reads up to sweepNotes notes. It returns those to delete.
func (s *Store) sweep(sweep *sweep) (logs []oldNotes, err error) {
	options := &pebble.IterOptions{LowerBound: sweep.next, UpperBound: []byte{noteTag + 1}}
	log := sweep.log
	sweep.next = nil
	flush := func() {
		if log.count > 0 {
			logs = append(logs, log)
		}
	}
	err = s.iterateKeys(options, func(iterator *pebble.Iterator) error {
		scanned := 0
		for valid := iterator.First(); valid; {
			if scanned++; scanned > sweepNotes {
				sweep.next = append(sweep.next, iterator.Key()...)
				break
			}
			value, err := iterator.ValueAndErr()
			if err != nil {
				return err
			}
			location, note, err := parseNote(iterator.Key(), value)
			if err != nil {
				return err
			}
			if location != log.location {
				flush()
				log = oldNotes{location: location}
			}
			age := notes.AgeOf(note.Time, sweep.before, sweep.now)
			if age == notes.Young {
				valid = iterator.NextPrefix()
				continue
			}
			log.add(note.Position, keySize+len(value), age)
			valid = iterator.Next()
		}
		flush()
		return nil
	})
	sweep.log = log.rest()
	return logs, err
}
