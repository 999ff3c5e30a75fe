// Package memorystore is the [notes.Store] in memory. Notes are lost when the process ends.
package memorystore

import (
	"context"
	"crypto/rand"
	"hash/maphash"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/feed"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

const (
	// There are 2^shardBits shards, each with its own lock: enough that two chats seldom contend.
	shardBits = 8
	// blockBytes is the size of the largest block of encoded notes of one location.
	blockBytes = 32 << 10
	// Chunks of Range and Changes have at most chunkNotes notes.
	chunkNotes = 512
	// changeCount is the number of changes that can be replayed.
	changeCount = 1 << 18
)

// A Store is a [notes.Store] in memory. It has one partition, and the positions of notes are the numbers of changes.
type Store struct {
	lineage string
	seed    maphash.Seed // random, so that clients cannot choose locations of one shard
	shards  [1 << shardBits]shard
	// last is the last position assigned, over all locations: no position is assigned twice, although a
	// location without notes leaves no state.
	last atomic.Uint64
	// changes is a ring of the locations of the last positions, in Z-order.
	changes []atomic.Uint64

	feed feed.Feed
	// ordered makes appends assign positions and announce them under order. Without it, positions are assigned
	// under the locks of shards only.
	ordered     atomic.Bool
	order       sync.Mutex
	subscribing sync.Mutex // guards ordered while it changes
}

// A shard is a part of the locations. What it holds is almost free of pointers, so that the garbage collector need not
// look at each note.
type shard struct {
	mu     sync.Mutex // guards the rest
	closed bool
	// places has the log of each location that has notes: a place in single or, with the bit isLong, an index of long.
	places table
	single arena  // the notes of logs with one note
	long   []*log // the other logs; nil where one has ended
	free   []int  // indices of long that are nil
	ids    ids
	_      [64]byte // padding against false sharing of a cache line
}

const isLong = 1 << 62

// log is a log of several notes. It is append-only, and a Forget replaces it, so that readers use its slice without a
// lock. Encoded notes are packed into blocks, because a replay is bound by memory access; the free rest of a block is the
// capacity of the last note.
type log struct {
	notes []notes.Note
}

// New returns an empty store.
func New() *Store {
	store := &Store{
		lineage: rand.Text(),
		seed:    maphash.MakeSeed(),
		changes: make([]atomic.Uint64, changeCount),
	}
	return store
}

func (s *Store) hash(z uint64) uint64 {
	return maphash.Comparable(s.seed, z)
}

// shard returns the shard of a hash, of which tables use the other bits.
func (s *Store) shard(hash uint64) *shard {
	return &s.shards[hash>>(64-shardBits)]
}

// Append implements [notes.Store]. It does not block.
func (s *Store) Append(_ context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	ticket.Settle(s.append(location, note))
}

func (s *Store) append(location notes.Location, note notes.Note) (notes.Receipt, error) {
	z := zorder.Of(location)
	h := s.hash(z)
	shard := s.shard(h)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	switch {
	case shard.closed:
		return notes.Receipt{}, notes.ErrClosed
	case note.ID != "":
		return s.addOnce(shard, z, h, &note)
	default:
		return s.add(shard, z, h, &note), nil
	}
}

// addOnce is add for a note with an ID. The caller holds shard.mu.
func (s *Store) addOnce(shard *shard, z, h uint64, note *notes.Note) (notes.Receipt, error) {
	location, hash := zorder.Location(z), maphash.Bytes(s.seed, note.Encoded)
	if first, ok := shard.ids.find(location, note.ID); ok {
		if first.hash != hash {
			return notes.Receipt{}, notes.ErrIDTaken
		}
		return first.receipt, nil
	}
	receipt := s.add(shard, z, h, note)
	shard.ids.add(location, note.ID, identified{receipt, hash})
	return receipt, nil
}

// add gives a note its position and adds it to its log. The caller holds shard.mu.
func (s *Store) add(shard *shard, z, h uint64, note *notes.Note) notes.Receipt {
	if s.ordered.Load() {
		s.order.Lock()
		defer s.order.Unlock()
	}
	// Assign the position under the lock, so that positions grow along the log.
	last := s.last.Add(1)
	note.Position = notes.Position(last)
	s.changes[last%changeCount].Store(z)
	alone := shard.add(shard.places.claim(s.hash, h, z), note)
	if s.feed.Active() {
		s.announce(z, note)
	}
	return notes.Receipt{Position: note.Position, Time: note.Time, Alone: alone}
}

func (s *Store) announce(z uint64, note *notes.Note) {
	change := notes.Change{Sequence: notes.Sequence(note.Position), Location: zorder.Location(z), Note: *note}
	s.feed.Announce(notes.Announcement{Changes: []notes.Change{change}})
}

// add adds a note to the log of a slot. It returns true if the note is the first one. The caller holds s.mu.
func (s *shard) add(slot *slot, note *notes.Note) (first bool) {
	switch {
	case slot.used == 0:
		slot.set(s.single.add(note))
		return true
	case slot.place()&isLong != 0:
		s.long[slot.place()&^isLong].append(*note)
	default:
		s.lengthen(slot, note)
	}
	return false
}

// lengthen adds a note to the log of a slot that has one. It is not a part of add, so that the stack of a silent chat, whose note was the
// first one, stays small. The caller holds s.mu.
func (s *shard) lengthen(slot *slot, note *notes.Note) {
	kept := &log{}
	kept.append(s.single.note(slot.place()))
	kept.append(*note)
	s.single.remove(slot.place())
	slot.set(s.keep(kept) | isLong)
}

// keep returns the index of a new log.
func (s *shard) keep(kept *log) uint64 {
	if last := len(s.free) - 1; last >= 0 {
		index := s.free[last]
		s.free = s.free[:last]
		s.long[index] = kept
		return uint64(index)
	}
	s.long = append(s.long, kept)
	return uint64(len(s.long) - 1)
}

func (l *log) append(note notes.Note) {
	var free []byte
	if len(l.notes) > 0 {
		last := l.notes[len(l.notes)-1].Encoded
		free = last[len(last):cap(last)]
	}
	if len(free) < len(note.Encoded) {
		free = make([]byte, max(len(note.Encoded), min(len(l.notes)*len(note.Encoded), blockBytes)))
	}
	note.Encoded = free[:copy(free, note.Encoded)]
	l.notes = append(l.notes, note)
}

// Range implements [notes.Store].
func (s *Store) Range(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		z := zorder.Of(location)
		h := s.hash(z)
		log, err := s.shard(h).log(h, z)
		if err != nil {
			yield(nil, err)
			return
		}
		for chunk := range slices.Chunk(span.Of(log), chunkNotes) {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			if !yield(chunk, nil) {
				return
			}
		}
	}
}

// log returns the log of a location.
func (s *shard) log(hash, z uint64) ([]notes.Note, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, notes.ErrClosed
	}
	slot := s.places.find(hash, z)
	switch {
	case slot == nil:
		return nil, nil
	case slot.place()&isLong != 0:
		return s.long[slot.place()&^isLong].notes, nil
	default:
		return []notes.Note{s.single.note(slot.place())}, nil
	}
}

// Locations implements [notes.Store]. It looks at every location, and sorts those in the rectangle.
func (s *Store) Locations(ctx context.Context, within notes.Rectangle, after *notes.Location) iter.Seq2[notes.Location, error] {
	return func(yield func(notes.Location, error) bool) {
		for _, box := range zorder.From(within, after) {
			found, err := s.inside(ctx, box)
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

// inside returns the locations in a box, in Z-order.
func (s *Store) inside(ctx context.Context, box zorder.Part) ([]uint64, error) {
	var found []uint64
	for i := range s.shards {
		var err error
		if found, err = s.shards[i].inside(box, found); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	slices.Sort(found)
	return found, nil
}

// inside appends the locations in a box.
func (s *shard) inside(box zorder.Part, found []uint64) ([]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, notes.ErrClosed
	}
	for i := range s.places.slots {
		if slot := &s.places.slots[i]; slot.used != 0 && slot.z >= box.From && box.Contains(slot.z) {
			found = append(found, slot.z)
		}
	}
	return found, nil
}

// Forget implements [notes.Store].
func (s *Store) Forget(ctx context.Context, before int64) (int, error) {
	count, now := 0, notes.Now()
	for i := range s.shards {
		forgotten, err := s.shards[i].forget(s.hash, before, now)
		count += forgotten
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return count, err
		}
	}
	return count, nil
}

func (s *shard) forget(hash func(uint64) uint64, before, now int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, notes.ErrClosed
	}
	count, ended := 0, 0
	for i := range s.places.slots {
		slot := &s.places.slots[i]
		if slot.used == 0 {
			continue
		}
		old, left := s.forgetLog(slot, before, now)
		count += old
		if !left {
			ended++
		}
	}
	if ended > 0 {
		s.places.rebuild(hash, func(slot *slot) bool { return slot.place() != gone })
	}
	if s.single.wasteful() {
		s.compact()
	}
	return count, nil
}

// gone is the place of a log that has lost all notes.
const gone = isLong - 1

// forgetLog forgets the old notes of a log, and returns their number and whether notes are left. If none are, the place
// is gone.
func (s *shard) forgetLog(slot *slot, before, now int64) (old int, left bool) {
	place := slot.place()
	if place&isLong == 0 {
		if notes.AgeOf(s.single.time(place), before, now) != notes.Old {
			return 0, true
		}
		s.single.remove(place)
		slot.set(gone)
		return 1, false
	}
	index := int(place &^ isLong)
	kept := s.long[index].notes
	old = countOld(kept, before, now)
	switch old {
	case 0:
	case len(kept):
		slot.set(gone)
		s.long[index] = nil
		s.free = append(s.free, index)
		return old, false
	default:
		// Copy: a subslice would keep the old notes in memory.
		young := &log{}
		for _, note := range kept[old:] {
			young.append(note)
		}
		s.long[index] = young
	}
	return old, true
}

// compact copies the single notes that are left, so that the others are freed.
func (s *shard) compact() {
	var compacted arena
	for i := range s.places.slots {
		if slot := &s.places.slots[i]; slot.used != 0 && slot.place()&isLong == 0 {
			note := s.single.note(slot.place())
			slot.set(compacted.add(&note))
		}
	}
	s.single = compacted
}

// countOld returns the length of the prefix of a log that [notes.Store.Forget] removes.
func countOld(log []notes.Note, before, now int64) int {
	count := 0
	for i := range log {
		switch notes.AgeOf(log[i].Time, before, now) {
		case notes.Old:
			count = i + 1
		case notes.Young:
			return count
		case notes.Future:
		}
	}
	return count
}

// Lineage implements [notes.Store].
func (s *Store) Lineage() string { return s.lineage }

// Ends implements [notes.Store].
func (s *Store) Ends(context.Context) ([]notes.Sequence, error) {
	last := s.last.Load()
	if err := s.awaitAppends(); err != nil {
		return nil, err
	}
	return []notes.Sequence{notes.Sequence(last)}, nil
}

// awaitAppends waits for the appends in flight.
func (s *Store) awaitAppends() error {
	for i := range s.shards {
		if err := s.shards[i].awaitAppends(); err != nil {
			return err
		}
	}
	return nil
}

func (s *shard) awaitAppends() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return notes.ErrClosed
	}
	return nil
}

// Changes implements [notes.Store].
func (s *Store) Changes(ctx context.Context, partition int, from notes.Sequence) iter.Seq2[[]notes.Change, error] {
	return func(yield func([]notes.Change, error) bool) {
		ends, err := s.Ends(ctx)
		if err == nil && (partition != 0 || from == 0 || from > ends[0]+1) {
			err = notes.ErrOutOfRange
		}
		if err != nil {
			yield(nil, err)
			return
		}
		var chunk []notes.Change
		for end := ends[0] + 1; from < end; from += notes.Sequence(len(chunk)) {
			chunk, err = s.replay(chunk[:0], from, min(end, from+chunkNotes))
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(chunk, nil) {
				return
			}
		}
	}
}

// replay appends the changes from one number to before another.
func (s *Store) replay(chunk []notes.Change, from, end notes.Sequence) ([]notes.Change, error) {
	for number := from; number < end; number++ {
		location := zorder.Location(s.changes[number%changeCount].Load())
		chunk = append(chunk, notes.Change{Sequence: number, Location: location, Note: notes.Note{Position: notes.Position(number)}})
	}
	if s.last.Load() >= uint64(from)+changeCount {
		return nil, notes.ErrOutOfRange // The ring has been overwritten.
	}
	return chunk, nil
}

// Subscribe implements [notes.Store].
func (s *Store) Subscribe(announce func(notes.Announcement)) (unsubscribe func()) {
	s.subscribing.Lock()
	defer s.subscribing.Unlock()
	s.ordered.Store(true)
	_ = s.awaitAppends() // A closed store announces nothing.
	end := s.feed.Subscribe(announce)
	return func() {
		s.subscribing.Lock()
		defer s.subscribing.Unlock()
		end()
		s.ordered.Store(s.feed.Active())
	}
}

// Close implements [notes.Store].
func (s *Store) Close() error {
	for i := range s.shards {
		s.shards[i].close()
	}
	return nil
}

func (s *shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.places, s.single, s.long, s.free, s.ids = true, table{}, arena{}, nil, nil, ids{}
}
