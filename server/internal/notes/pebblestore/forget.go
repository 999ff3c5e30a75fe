package pebblestore

import (
	"context"
	"slices"

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
	// Compaction of an epoch starts when its deleted notes have reclaimBytes bytes: it rewrites all notes that are left.
	reclaimBytes = 16 << 20
)

// oldNotes is the prefix of a log, within an epoch, that Forget deletes.
type oldNotes struct {
	epoch     *epoch
	z         uint64
	from      notes.Position   // first note
	positions []notes.Position // first maxPointDeletes notes
	last      notes.Position   // last old note

	count, bytes int // notes, and their bytes, up to the last old note
	// future and futureBytes are the notes after the last old one, and their bytes, and futureLast is the last of them.
	// They are dated in the future, and are deleted once an old note follows.
	future, futureBytes int
	futureLast          notes.Position
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
	o.futureLast = position
	if age == notes.Old {
		o.include()
	}
}

// include makes the notes dated in the future old ones: an old note follows.
func (o *oldNotes) include() {
	if o.future == 0 {
		return
	}
	o.last = o.futureLast
	o.count, o.bytes = o.count+o.future, o.bytes+o.futureBytes
	o.future, o.futureBytes = 0, 0
}

// rest returns what is left once the notes up to the last old one are deleted.
func (o *oldNotes) rest() oldNotes {
	return oldNotes{epoch: o.epoch, z: o.z, from: o.last + 1, future: o.future, futureBytes: o.futureBytes, futureLast: o.futureLast}
}

// erase adds the deletion of the notes up to the last old one to a batch.
func (o *oldNotes) erase(batch *pebble.Batch) error {
	if o.count > len(o.positions) {
		return batch.DeleteRange(appendKey(nil, o.epoch.number, o.z, o.from), appendKey(nil, o.epoch.number, o.z, o.last+1), nil)
	}
	for _, position := range o.positions[:o.count] {
		if err := batch.Delete(appendKey(nil, o.epoch.number, o.z, position), nil); err != nil {
			return err
		}
	}
	return nil
}

// Forget implements [notes.Store]. It reads the first notes of every location in each epoch that has old notes, from the
// oldest epoch on.
func (s *Store) Forget(ctx context.Context, before int64) (int, error) {
	s.open.RLock()
	err := s.usable()
	s.open.RUnlock()
	if err != nil {
		return 0, err
	}
	// One at a time: two would count the same notes.
	select {
	case s.forgetting <- struct{}{}:
		defer func() { <-s.forgetting }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	count, now := 0, notes.Now()
	list := *s.epochs.Load()
	for i, epoch := range list {
		if epoch.oldest.Load() >= before {
			continue
		}
		forgotten, err := s.forgetEpoch(ctx, &sweep{before: before, now: now, epoch: epoch, earlier: list[:i], next: epoch.start()})
		count += forgotten
		if err != nil {
			return count, err
		}
		if err := s.reclaim(ctx, epoch); err != nil {
			return count, err
		}
	}
	// Notes dated in the future may have been deleted from earlier epochs meanwhile.
	for _, epoch := range *s.epochs.Load() {
		if err := s.reclaim(ctx, epoch); err != nil {
			return count, err
		}
	}
	return count, nil
}

func (s *Store) forgetEpoch(ctx context.Context, sweep *sweep) (count int, err error) {
	for sweep.next != nil {
		if err := ctx.Err(); err != nil {
			return count, err
		}
		logs, err := s.sweep(ctx, sweep)
		if err != nil {
			return count, err
		}
		if len(logs) > 0 {
			if err := s.erase(ctx, erasure{epoch: sweep.epoch, logs: logs}); err != nil {
				return count, err
			}
		}
		for i := range logs {
			count += logs[i].count
		}
	}
	return count, nil
}

// erase has the committer delete notes.
func (s *Store) erase(ctx context.Context, erasure erasure) error {
	done := make(chan error, 1)
	erasure.done = done
	if err := s.committer.queue.Put(ctx, queue.Open, work{erase: &erasure}, 0); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done(): // The committer may wait for a full disk.
		return context.Cause(ctx)
	}
}

// reclaim compacts an epoch once enough of it is deleted. By itself, the engine compacts only after long range
// deletes or many further writes. A complete epoch without notes is dropped.
func (s *Store) reclaim(ctx context.Context, epoch *epoch) error {
	empty := false
	if epoch != s.epochs.Load().active() {
		var err error
		if empty, err = s.isEmpty(epoch); err != nil {
			return err
		}
	}
	if empty {
		if err := s.erase(ctx, erasure{epoch: epoch, drop: true}); err != nil {
			return err
		}
	}
	if erased := epoch.erased.Load(); !empty && erased < reclaimBytes {
		return nil
	}
	epoch.erased.Store(0)
	s.open.RLock()
	defer s.open.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	return s.db.Compact(ctx, epoch.start(), epoch.end(), false)
}

func (s *Store) isEmpty(epoch *epoch) (empty bool, err error) {
	err = s.iterateKeys(&pebble.IterOptions{LowerBound: epoch.start(), UpperBound: epoch.end()}, func(iterator *pebble.Iterator) error {
		empty = !iterator.First()
		return iterator.Error()
	})
	return empty && err == nil, err
}

// sweep is the cursor of a Forget in an epoch.
type sweep struct {
	before, now int64 // arguments of notes.AgeOf
	epoch       *epoch
	earlier     epochs
	next        []byte   // key to continue at; nil at the end
	log         oldNotes // the log of next: notes read and not deleted so far
}

// sweep reads up to sweepNotes notes. It returns those to delete.
func (s *Store) sweep(ctx context.Context, sweep *sweep) (logs []oldNotes, err error) {
	options := &pebble.IterOptions{LowerBound: sweep.next, UpperBound: sweep.epoch.end()}
	log := sweep.log
	sweep.next = nil
	flush := func(iterator *pebble.Iterator) error {
		if log.count == 0 {
			return nil
		}
		whole, err := s.oldInAll(ctx, iterator, sweep, log.z)
		switch {
		case err != nil:
			return err
		case whole == nil:
			logs = append(logs, log)
		default:
			logs = append(logs, whole...)
			log = oldNotes{epoch: sweep.epoch, z: log.z} // The notes dated in the future are among them.
		}
		return nil
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
			z, note, err := parseNote(iterator.Key(), value)
			if err != nil {
				return err
			}
			if z != log.z || log.epoch == nil {
				if err := flush(iterator); err != nil {
					return err
				}
				log = oldNotes{epoch: sweep.epoch, z: z}
			}
			age := notes.AgeOf(note.Time, sweep.before, sweep.now)
			if age == notes.Young {
				valid = iterator.NextPrefix()
				continue
			}
			log.add(note.Position, keySize+len(value), age)
			valid = iterator.Next()
		}
		return flush(iterator)
	})
	sweep.log = log.rest()
	return logs, err
}

// oldInAll returns the notes of a log to delete, in all epochs, if it still has notes in an epoch before that of a sweep,
// and nil if it has none. Such notes are dated in the future, or young.
func (s *Store) oldInAll(ctx context.Context, iterator *pebble.Iterator, sweep *sweep, z uint64) ([]oldNotes, error) {
	earlier := sweep.earlier.of(z, notes.Everything)
	if len(earlier) == 0 {
		return nil, nil
	}
	all, err := iterator.Clone(pebble.CloneOptions{IterOptions: lookupOptions})
	if err != nil {
		return nil, err
	}
	defer all.Close()
	left := false
	for _, epoch := range earlier {
		left = left || all.SeekPrefixGE(appendPrefix(nil, epoch.number, z))
	}
	if !left {
		return nil, all.Error()
	}
	logs := []oldNotes{}
	for _, epoch := range s.epochs.Load().of(z, notes.Everything) {
		log := oldNotes{epoch: epoch, z: z}
		for valid := all.SeekPrefixGE(appendPrefix(nil, epoch.number, z)); valid; valid = all.Next() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			value, err := all.ValueAndErr()
			if err != nil {
				return nil, err
			}
			_, note, err := parseNote(all.Key(), value)
			if err != nil {
				return nil, err
			}
			age := notes.AgeOf(note.Time, sweep.before, sweep.now)
			if age == notes.Young {
				return withOld(append(logs, log)), nil
			}
			log.add(note.Position, keySize+len(value), age)
			if age == notes.Old {
				for i := range logs {
					logs[i].include()
				}
			}
		}
		logs = append(logs, log)
	}
	return withOld(logs), all.Error()
}

// withOld returns the parts of a log that have notes to delete.
func withOld(logs []oldNotes) []oldNotes {
	return slices.DeleteFunc(logs, func(log oldNotes) bool { return log.count == 0 })
}
