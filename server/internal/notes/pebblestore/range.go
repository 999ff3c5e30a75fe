package pebblestore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

const (
	// Limits of a chunk of Range, in notes and bytes. A chunk of one note may exceed chunkBytes.
	chunkNotes = 512
	chunkBytes = 128 << 10
	// locationsPerScan is the number of locations read with one iterator. An open iterator keeps deleted
	// notes on the disk.
	locationsPerScan = 1024
)

// Range implements [notes.Store].
func (s *Store) Range(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		z := zorder.Of(location)
		// The engine would return notes that are written and not synced: hide them.
		span.Through = min(span.Through, notes.Position(s.committer.synced.Load()))
		span, done := s.rangeCached(ctx, z, span, yield)
		if done {
			return
		}
		if span.Newest > chunkNotes {
			var err error
			if span, err = s.newest(z, span); err != nil {
				yield(nil, err)
				return
			}
		}
		if span.Newest > 0 {
			if chunk, err := s.readNewest(ctx, z, span); len(chunk) > 0 || err != nil {
				yield(chunk, err)
			}
			return
		}
		for chunk := (&chunk{}); ; {
			err := ctx.Err()
			if err == nil {
				err = s.read(chunk, z, span)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if len(chunk.notes) == 0 || !yield(chunk.notes, nil) || !chunk.more {
				return
			}
			span.After = chunk.notes[len(chunk.notes)-1].Position
		}
	}
}

// buffers are slices of notes, for chunks of the cache.
var buffers = sync.Pool{New: func() any { return new([]notes.Note) }}

// rangeCached is Range of what the cache has. If it does not have all of the span, it returns what is left, and false.
func (s *Store) rangeCached(ctx context.Context, z uint64, span notes.Span, yield func([]notes.Note, error) bool) (rest notes.Span, done bool) {
	buffer := buffers.Get().(*[]notes.Note) //nolint:errcheck,forcetypeassert // The pool has nothing else.
	defer buffers.Put(buffer)
	for ctx.Err() == nil && !s.isClosed() && !s.folder.missing.Load() {
		chunk, ok := s.cache.read((*buffer)[:0], z, span)
		if !ok {
			return span, false
		}
		done = len(chunk) == 0 || !yield(chunk, nil) || len(chunk) < chunkNotes
		if !done {
			span.After = chunk[len(chunk)-1].Position
		}
		clear(chunk)
		if *buffer = chunk[:0]; done {
			return span, true
		}
	}
	return span, false
}

// chunk is a part of a log, copied out of the engine.
type chunk struct {
	notes []notes.Note
	bytes []byte
	more  bool // another chunk may follow
}

// read copies the first chunk of a span.
func (s *Store) read(chunk *chunk, z uint64, span notes.Span) error {
	chunk.notes, chunk.bytes, chunk.more = chunk.notes[:0], chunk.bytes[:0], false
	return s.iterateKeys(lookupOptions, func(iterator *pebble.Iterator) error {
		for _, epoch := range s.epochs.Load().of(z, span) {
			if err := chunk.read(iterator, epoch, z, span); err != nil || chunk.more {
				return err
			}
		}
		return nil
	})
}

// read copies the notes of an epoch. It sets more once the chunk is full.
func (c *chunk) read(iterator *pebble.Iterator, epoch *epoch, z uint64, span notes.Span) error {
	for valid := iterator.SeekPrefixGE(appendKey(nil, epoch.number, z, span.After+1)); valid; valid = iterator.Next() {
		_, position, err := parseKey(iterator.Key())
		if err != nil {
			return err
		}
		if position > span.Through {
			return nil
		}
		value, err := iterator.ValueAndErr()
		if err != nil {
			return err
		}
		if len(c.notes) > 0 && (len(c.notes) == chunkNotes || len(c.bytes)+len(value) > chunkBytes) {
			c.more = true
			return nil
		}
		if len(c.bytes)+len(value) > cap(c.bytes) {
			// The notes so far keep the old array. A chunk seldom grows more than once.
			c.bytes = make([]byte, 0, min(max(2*cap(c.bytes), len(value), 4<<10), max(chunkBytes, len(value))))
		}
		start := len(c.bytes)
		c.bytes = append(c.bytes, value...)
		_, note, err := parseNote(iterator.Key(), c.bytes[start:])
		if err != nil {
			return err
		}
		c.notes = append(c.notes, note)
	}
	return iterator.Error()
}

// readNewest returns the newest notes of a span, at most chunkNotes.
func (s *Store) readNewest(ctx context.Context, z uint64, span notes.Span) ([]notes.Note, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var log cachedLog
	err := s.iterateKeys(lookupOptions, func(iterator *pebble.Iterator) error {
		return log.readNewest(iterator, *s.epochs.Load(), z, span, span.Newest, 0)
	})
	if err != nil {
		return nil, err
	}
	chunk, _ := log.read(nil, span)
	return chunk, nil
}

// lookupOptions are the options of an iterator for lookups by prefix: most are of locations that a level does not have.
var lookupOptions = &pebble.IterOptions{UseL6Filters: true}

// As long as an epoch has no more than forwardNotes notes of a log, and forwardBytes bytes, they are read forward: the
// filters of tables then save most reads. Backward, one can stop.
const (
	forwardNotes = 64
	forwardBytes = 64 << 10
)

// readNewest reads the newest notes of a span, whatever its Newest: at least count of them, and size bytes.
func (l *cachedLog) readNewest(iterator *pebble.Iterator, list epochs, z uint64, span notes.Span, count, size int) error {
	list = list.of(z, span)
	var parts []cachedLog // of epochs, the newest first
	for i, epoch := range slices.Backward(list) {
		part, whole, err := readForward(iterator, epoch, z, span)
		if err == nil && !whole {
			part, err = readBackward(iterator, epoch, z, span, count, size)
		}
		if err != nil {
			return err
		}
		parts = append(parts, part)
		count -= len(part.ends)
		size -= len(part.data)
		if count <= 0 && size <= 0 {
			l.partial = !whole || i > 0
			break
		}
	}
	for _, part := range slices.Backward(parts) {
		l.append(part)
	}
	return nil
}

// append appends newer notes.
func (l *cachedLog) append(newer cachedLog) {
	if l.data == nil {
		l.data, l.ends = newer.data, newer.ends
		return
	}
	start := uint32(len(l.data))
	l.data = append(l.data, newer.data...)
	for _, end := range newer.ends {
		l.ends = append(l.ends, start+end)
	}
}

// readForward reads the notes of an epoch in a span. Its second result is false if they are too many.
func readForward(iterator *pebble.Iterator, epoch *epoch, z uint64, span notes.Span) (part cachedLog, whole bool, err error) {
	for valid := iterator.SeekPrefixGE(appendKey(nil, epoch.number, z, span.After+1)); valid; valid = iterator.Next() {
		note, err := currentNote(iterator)
		if err != nil {
			return part, false, err
		}
		if note.Position > span.Through {
			break
		}
		if len(part.ends) == forwardNotes || len(part.data)+len(note.Encoded) > forwardBytes {
			return part, false, nil
		}
		part.add(note)
	}
	return part, true, iterator.Error()
}

// readBackward reads the newest notes of an epoch in a span: at least count, if there are as many, and size bytes.
func readBackward(iterator *pebble.Iterator, epoch *epoch, z uint64, span notes.Span, count, size int) (part cachedLog, err error) {
	first := appendKey(nil, epoch.number, z, span.After+1)
	end := appendKey(nil, epoch.number, z, span.Through)
	var reversed []notes.Note
	for valid := iterator.SeekLT(append(end, 0)); valid && bytes.Compare(iterator.Key(), first) >= 0 && (count > 0 || size > 0); valid = iterator.Prev() {
		note, err := currentNote(iterator)
		if err != nil {
			return part, err
		}
		note.Encoded = bytes.Clone(note.Encoded)
		reversed = append(reversed, note)
		count--
		size -= 8 + valueSize(note)
	}
	for _, note := range slices.Backward(reversed) {
		part.add(note)
	}
	return part, iterator.Error()
}

// currentNote returns the note at an iterator, which is valid until the iterator moves.
func currentNote(iterator *pebble.Iterator) (notes.Note, error) {
	value, err := iterator.ValueAndErr()
	if err != nil {
		return notes.Note{}, err
	}
	_, note, err := parseNote(iterator.Key(), value)
	return note, err
}

// newest returns the span with Newest resolved: its After is the position before the newest notes.
func (s *Store) newest(z uint64, span notes.Span) (notes.Span, error) {
	skip := span.Newest
	span.Newest = 0
	err := s.iterateKeys(nil, func(iterator *pebble.Iterator) error {
		for _, epoch := range slices.Backward(s.epochs.Load().of(z, span)) {
			first := appendKey(nil, epoch.number, z, span.After+1)
			end := appendKey(nil, epoch.number, z, span.Through)
			valid := iterator.SeekLT(append(end, 0)) // behind the note at Through
			for ; valid && bytes.Compare(iterator.Key(), first) >= 0; valid = iterator.Prev() {
				if skip--; skip >= 0 {
					continue
				}
				_, position, err := parseKey(iterator.Key())
				span.After = position
				return err
			}
			if err := iterator.Error(); err != nil {
				return err
			}
		}
		return nil
	})
	return span, err
}

// usable returns an error if the store is closed or its folder missing. The caller holds s.open.
func (s *Store) usable() error {
	if s.closed {
		return notes.ErrClosed
	}
	return s.folder.check() // Without the folder, the engine could not open further files.
}

// iterateKeys calls read with an iterator, which is closed afterwards.
func (s *Store) iterateKeys(options *pebble.IterOptions, read func(*pebble.Iterator) error) error {
	s.open.RLock()
	defer s.open.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	iterator, err := s.db.NewIter(options)
	if err != nil {
		return damaged(err)
	}
	err = read(iterator)
	return damaged(errors.Join(err, iterator.Close()))
}

// Locations implements [notes.Store].
func (s *Store) Locations(ctx context.Context, within notes.Rectangle, after *notes.Location) iter.Seq2[notes.Location, error] {
	return func(yield func(notes.Location, error) bool) {
		for _, part := range zorder.From(within, after) {
			var found []uint64
			for more := true; more; {
				err := ctx.Err()
				if err == nil {
					found, more, err = s.inside(found[:0], part)
				}
				if err != nil {
					yield(notes.Location{}, err)
					return
				}
				for _, z := range found {
					if !yield(zorder.Location(z), nil) {
						return
					}
					part.From = z + 1
				}
			}
		}
	}
}

// inside appends up to locationsPerScan locations of a part of a rectangle, in Z-order. Its second result is true if
// there may be more.
func (s *Store) inside(found []uint64, part zorder.Part) (_ []uint64, more bool, err error) {
	err = s.iterateKeys(nil, func(iterator *pebble.Iterator) error {
		var cursors []*locationCursor
		for _, epoch := range *s.epochs.Load() {
			cursor, err := newLocationCursor(iterator, epoch, part)
			if err != nil {
				return err
			}
			defer cursor.iterator.Close()
			if err := cursor.seek(part.From); err != nil {
				return err
			}
			if cursor.valid {
				cursors = append(cursors, cursor)
			}
		}
		for len(cursors) > 0 {
			if len(found) == locationsPerScan {
				more = true
				return nil
			}
			least := slices.MinFunc(cursors, func(a, b *locationCursor) int { return cmp.Compare(a.z, b.z) }).z
			found = append(found, least)
			for _, cursor := range cursors {
				if cursor.z == least {
					if err := cursor.next(); err != nil {
						return err
					}
				}
			}
			cursors = slices.DeleteFunc(cursors, func(cursor *locationCursor) bool { return !cursor.valid })
		}
		return nil
	})
	return found, more, err
}

// locationCursor walks through the locations of an epoch that are in a box, in Z-order.
type locationCursor struct {
	iterator *pebble.Iterator
	epoch    *epoch
	box      zorder.Box
	z        uint64
	valid    bool
}

func newLocationCursor(iterator *pebble.Iterator, epoch *epoch, part zorder.Part) (*locationCursor, error) {
	options := &pebble.IterOptions{
		LowerBound: appendPrefix(nil, epoch.number, part.From),
		UpperBound: comparer.ImmediateSuccessor(nil, appendPrefix(nil, epoch.number, part.Max)),
	}
	own, err := iterator.Clone(pebble.CloneOptions{IterOptions: options})
	return &locationCursor{iterator: own, epoch: epoch, box: part.Box}, err
}

// seek moves to the first location from a number on.
func (c *locationCursor) seek(z uint64) error {
	if z, c.valid = c.box.Next(z); !c.valid {
		return nil
	}
	c.valid = c.iterator.SeekGE(appendPrefix(nil, c.epoch.number, z))
	return c.enter()
}

// next moves to the next location.
func (c *locationCursor) next() error {
	c.valid = c.iterator.NextPrefix()
	return c.enter()
}

// enter skips what is not in the box.
func (c *locationCursor) enter() (err error) {
	for c.valid {
		if c.z, _, err = parseKey(c.iterator.Key()); err != nil {
			return err
		}
		if c.box.Contains(c.z) {
			return nil
		}
		z, ok := c.box.Next(c.z)
		if !ok {
			c.valid = false
			return nil
		}
		c.valid = c.iterator.SeekGE(appendPrefix(nil, c.epoch.number, z))
	}
	return c.iterator.Error()
}
