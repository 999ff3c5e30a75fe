package redisstore

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
)

// A run is some notes of one log, in order, or one note with an ID: what appendScript takes together.
type run struct {
	z     uint64
	items []pendingNote
}

// A batch is the notes of one partition that one appendScript writes.
type batch struct {
	partition *partition
	runs      []run
	open      map[uint64]int // index of the run that takes the next note of a location
	keys      []string
	args      []string
	asText    bool      // send the script as text
	known     knowledge // of the partition, when the batch was sent
}

// identified returns whether a note has an ID that Redis must know.
func identified(note notes.Note, now int64) bool {
	return note.ID != "" && note.Time > now-int64(notes.IDLifetime)
}

func (b *batch) add(item pendingNote, hasID bool) {
	if target, ok := b.open[item.z]; ok && !hasID {
		b.runs[target].items = append(b.runs[target].items, item)
		return
	}
	b.runs = append(b.runs, run{item.z, []pendingNote{item}})
	if hasID {
		delete(b.open, item.z)
	} else {
		b.open[item.z] = len(b.runs) - 1
	}
}

// The first arguments of appendScript that change between two attempts.
const (
	lineageArg = iota
	lastArg
)

// prepare builds the keys and arguments of a batch, in Z-order: neighbours in the index are close to each other in the
// memory of Redis, too.
func (b *batch) prepare(now int64) {
	p := b.partition
	slices.SortStableFunc(b.runs, func(a, b run) int { return cmp.Compare(a.z, b.z) })
	b.keys = append(make([]string, 0, 3+len(b.runs)), p.partition, p.changes, p.index)
	token := rand.Uint64() //nolint:gosec // it tells batches apart, and is no secret
	b.args = append(make([]string, 0, 5+3*len(b.runs)), "", "", strconv.FormatUint(token, 10), strconv.Itoa(keptChanges), p.channel)
	for _, run := range b.runs {
		b.keys = append(b.keys, p.log(run.z))
		if note := run.items[0].note; identified(note, now) {
			expiry := time.Unix(0, note.Time).Add(notes.IDLifetime).UnixMilli()
			b.keys = append(b.keys, p.id(run.z, note.ID))
			b.args = append(b.args, "0", encode(note), strconv.FormatInt(expiry, 10), hashOf(note.Encoded))
			continue
		}
		b.args = append(b.args, strconv.Itoa(len(run.items)))
		for i := range run.items {
			b.args = append(b.args, encode(run.items[i].note))
		}
	}
}

// split divides notes into a batch per partition.
func (s *Store) split(items []pendingNote) []*batch {
	var batches []*batch
	open := make(map[int]*batch)
	now := notes.Now()
	for _, item := range items {
		number := partitionOf(item.z, len(s.partitions))
		target := open[number]
		if target == nil {
			target = &batch{partition: s.partitions[number], open: make(map[uint64]int)}
			open[number] = target
			batches = append(batches, target)
		}
		target.add(item, identified(item.note, now))
	}
	for _, batch := range batches {
		batch.prepare(now)
	}
	return batches
}

func (b *batch) command(client rueidis.CoreClient) rueidis.Completed {
	b.known = b.partition.known()
	b.args[lineageArg], b.args[lastArg] = b.known.lineage, b.known.last
	return appending.command(client, b.asText, b.keys, b.args)
}

// settle settles the tickets of a batch with the results of its notes, or with an error.
func (b *batch) settle(results []rueidis.RedisMessage, err error) {
	for _, run := range b.runs {
		for i := range run.items {
			receipt, err := notes.Receipt{}, err
			if err == nil {
				receipt, err = parseReceipt(&results[0], run.items[i].note)
				results = results[1:]
			}
			run.items[i].ticket.Settle(receipt, err)
		}
	}
}

// parse parses the reply of appendScript.
func (b *batch) parse(reply *rueidis.RedisMessage) ([]rueidis.RedisMessage, error) {
	values, err := reply.ToArray()
	if err != nil {
		return nil, writeError(err)
	}
	count := 0
	for _, run := range b.runs {
		count += len(run.items)
	}
	if len(values) != count+1 {
		return nil, fmt.Errorf("%w: %w: the reply to %d notes has %d values", notes.ErrUnknown, notes.ErrDamaged, count, len(values))
	}
	last, err := values[0].ToString()
	if err == nil {
		err = b.partition.see(place{b.known.lineage, last}, true) // without replicas, nobody asks
	}
	if err != nil {
		return nil, writeError(err)
	}
	return values[1:], nil
}

// parseReceipt parses the result of a note.
func parseReceipt(result *rueidis.RedisMessage, note notes.Note) (notes.Receipt, error) {
	if result.IsString() {
		first, err := result.ToString()
		if err != nil {
			return notes.Receipt{}, err
		}
		return parseFirst(first)
	}
	position, err := result.AsInt64()
	switch {
	case err != nil:
		return notes.Receipt{}, writeError(err)
	case position == 0:
		return notes.Receipt{}, notes.ErrIDTaken
	default:
		return notes.Receipt{Position: notes.Position(max(position, -position)), Time: note.Time, Alone: position < 0}, nil
	}
}
