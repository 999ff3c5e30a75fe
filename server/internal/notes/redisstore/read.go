package redisstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strconv"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

// Range implements [notes.Store].
func (s *Store) Range(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		for more := true; more && span.After < span.Through; {
			var chunk []notes.Note
			var err error
			chunk, more, err = s.read(ctx, location, span)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(chunk) == 0 || !yield(chunk, nil) {
				return
			}
			span.After = chunk[len(chunk)-1].Position
			span.Newest = 0 // resolved by the first chunk: After excludes older notes
		}
	}
}

// read returns the first chunk of a span, and whether more follow.
func (s *Store) read(ctx context.Context, location notes.Location, span notes.Span) (chunk []notes.Note, more bool, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, false, err
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	z := zorder.Of(location)
	p := s.partitionOf(z)
	known := p.known()
	keys := []string{p.log(z), p.changes}
	if s.replicas == 0 {
		keys = keys[:1]
	}
	reply, err := ranging.Exec(callCtx, s.client, keys, []string{
		strconv.FormatUint(uint64(span.After), 10), strconv.FormatUint(uint64(span.Through), 10), strconv.Itoa(span.Newest),
		strconv.Itoa(chunkNotes), strconv.Itoa(chunkBytes), strconv.FormatUint(uint64(known.replicated), 10),
	}).ToArray()
	if err != nil {
		return nil, false, readError(ctx, err)
	}
	chunk, more, unconfirmed, err := parseRange(reply)
	if err != nil {
		return nil, false, err
	}
	return chunk, more, s.confirm(ctx, p, place{known.lineage, unconfirmed})
}

// parseRange parses the reply of rangeScript.
func parseRange(reply []rueidis.RedisMessage) (chunk []notes.Note, more bool, unconfirmed string, err error) {
	if len(reply) < 3 {
		return nil, false, "", fmt.Errorf("%w: the reply of a range has %d values", notes.ErrDamaged, len(reply))
	}
	first, err := reply[0].AsInt64()
	if err != nil {
		return nil, false, "", err
	}
	moreNumber, err := reply[1].AsInt64()
	if err != nil {
		return nil, false, "", err
	}
	if unconfirmed, err = reply[2].ToString(); err != nil {
		return nil, false, "", err
	}
	chunk = make([]notes.Note, 0, len(reply)-3)
	for i, message := range reply[3:] {
		element, err := message.AsBytes()
		if err != nil {
			return nil, false, "", err
		}
		note, err := decode(element, notes.Position(first+int64(i)))
		if err != nil {
			return nil, false, "", err
		}
		chunk = append(chunk, note)
	}
	return chunk, moreNumber != 0, unconfirmed, nil
}

// Locations implements [notes.Store]. It merges the indexes of the partitions.
func (s *Store) Locations(ctx context.Context, within notes.Rectangle, after *notes.Location) iter.Seq2[notes.Location, error] {
	return func(yield func(notes.Location, error) bool) {
		count := firstLocations
		for _, part := range zorder.From(within, after) {
			for more := true; more; count = min(2*count, maxLocations) {
				var found []uint64
				var err error
				found, more, err = s.locations(ctx, &part, count)
				if err != nil {
					yield(notes.Location{}, err)
					return
				}
				for _, z := range found {
					if !yield(zorder.Location(z), nil) {
						return
					}
				}
			}
		}
	}
}

// locations returns the next locations of a part, in Z-order, and whether there may be more. It moves the part
// beyond them. It reads up to a number of locations from each partition, and returns those before which no
// partition has any that was not read.
func (s *Store) locations(ctx context.Context, part *zorder.Part, count int) (found []uint64, more bool, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, false, err
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	args := []string{strconv.Itoa(count)}
	for _, r := range part.Ranges(part.From, boxRanges) {
		args = append(args, encodeZ(r.First), encodeZ(r.Last))
	}
	if len(args) == 1 {
		return nil, false, nil
	}
	commands := make([]rueidis.Completed, len(s.partitions))
	for i, p := range s.partitions {
		commands[i] = s.client.B().EvalRo().Script(locationsScript).Numkeys(1).Key(p.index).Arg(args...).Build()
	}
	through := part.Max
	for _, result := range s.client.DoMulti(callCtx, commands...) {
		joined, err := result.AsBytes()
		if err != nil {
			return nil, false, readError(ctx, err)
		}
		last := uint64(0)
		for z := range slices.Chunk(joined, zSize) {
			if len(z) < zSize {
				return nil, false, fmt.Errorf("%w: the index has %d bytes", notes.ErrDamaged, len(joined))
			}
			last = binary.BigEndian.Uint64(z)
			if part.Contains(last) {
				found = append(found, last)
			}
		}
		if len(joined) >= count*zSize {
			through = min(through, last)
		}
	}
	slices.Sort(found)
	end, _ := slices.BinarySearch(found, through)
	if end < len(found) && found[end] == through {
		end++
	}
	if through == part.Max {
		return found, false, nil
	}
	part.From = through + 1
	return found[:end], true, nil
}

// Ends implements [notes.Store].
func (s *Store) Ends(ctx context.Context) ([]notes.Sequence, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	places, err := s.places(ctx)
	if err != nil {
		return nil, err
	}
	ends := make([]notes.Sequence, len(places))
	for i, place := range places {
		if ends[i], err = sequenceOf(place.last); err != nil {
			return nil, err
		}
	}
	return ends, nil
}

// Changes implements [notes.Store].
func (s *Store) Changes(ctx context.Context, partition int, from notes.Sequence) iter.Seq2[[]notes.Change, error] {
	return func(yield func([]notes.Change, error) bool) {
		for more := true; more; {
			var chunk []notes.Change
			var err error
			chunk, more, err = s.changes(ctx, partition, from)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(chunk) == 0 || !yield(chunk, nil) {
				return
			}
			from = chunk[len(chunk)-1].Sequence + 1
		}
	}
}

// changes returns the first chunk of the changes from a number on, and whether more follow.
func (s *Store) changes(ctx context.Context, partition int, from notes.Sequence) (chunk []notes.Change, more bool, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, false, err
	}
	if partition < 0 || partition >= len(s.partitions) || from == 0 {
		return nil, false, notes.ErrOutOfRange
	}
	p := s.partitions[partition]
	replay, err := s.replay(ctx, p, strconv.FormatUint(uint64(from), 10), "")
	if err != nil {
		return nil, false, err
	}
	if err := s.adopt(p, replay.lineage); err != nil {
		return nil, false, err
	}
	end, err := sequenceOf(replay.last)
	if err != nil {
		return nil, false, err
	}
	for _, batch := range replay.batches {
		chunk = append(chunk, batch.changes...)
	}
	if end+1 < from || end >= from && (len(chunk) == 0 || chunk[0].Sequence > from) {
		return nil, false, notes.ErrOutOfRange
	}
	for i := range chunk {
		if chunk[i].Sequence == from {
			chunk = chunk[i:]
			break
		}
	}
	return chunk, len(chunk) > 0 && chunk[len(chunk)-1].Sequence < end, nil
}

// replay is some of the changes of a partition.
type replay struct {
	place

	batches []replayed
}

// replayed is a batch of changes.
type replayed struct {
	id      string
	changes []notes.Change
}

// replay reads batches of changes: from one on, given by its ID, a number, or "-". Unless it is given by its ID, their
// notes are read, too, from the logs with a prefix.
func (s *Store) replay(ctx context.Context, p *partition, from, logs string) (replay, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := replaying.Exec(callCtx, s.client, []string{p.partition, p.changes},
		[]string{from, strconv.Itoa(chunkNotes), strconv.Itoa(chunkBytes), logs}).ToArray()
	if err != nil {
		return replay{}, readError(ctx, err)
	}
	texts := make([]string, len(reply))
	for i := range reply {
		if texts[i], err = reply[i].ToString(); err != nil {
			return replay{}, readError(ctx, err)
		}
	}
	return parseReplay(texts, from, logs != "")
}

// parseReplay parses the reply of replayScript.
func parseReplay(texts []string, from string, withNotes bool) (parsed replay, err error) {
	short := fmt.Errorf("%w: the reply of a replay has %d values", notes.ErrDamaged, len(texts))
	if len(texts) < 2 {
		return replay{}, short
	}
	parsed.place = place{texts[0], texts[1]}
	for rest := texts[2:]; len(rest) > 0; {
		if len(rest) < 2 {
			return replay{}, short
		}
		batch := replayed{id: rest[0]}
		if batch.changes, err = parseChanges(rest[0], rest[1]); err != nil {
			return replay{}, err
		}
		rest = rest[2:]
		if withNotes && batch.id != from {
			if len(rest) < len(batch.changes) {
				return replay{}, short
			}
			for i := range batch.changes {
				if note := &batch.changes[i].Note; rest[i] != "" {
					if *note, err = decode([]byte(rest[i]), note.Position); err != nil {
						return replay{}, err
					}
				}
			}
			rest = rest[len(batch.changes):]
		}
		parsed.batches = append(parsed.batches, batch)
	}
	return parsed, nil
}
