package notes

import (
	"bytes"
	"context"
	"hash/maphash"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// memoryShards is the number of shards, each with its own lock: enough that two chats seldom contend.
	memoryShards = 256
	// memoryBlock is the largest block of notes of one location, in bytes.
	memoryBlock = 32 << 10
	// memoryChunk is the largest chunk of a range, in notes.
	memoryChunk = 512
)

// memory is a sharded [Store] in memory. Notes are lost when the process ends.
type memory struct {
	seed   maphash.Seed // random, so that clients cannot choose locations of one shard
	shards [memoryShards]memoryShard
	// last is the last position assigned, over all locations: no position is assigned twice, although a
	// location without notes leaves no state.
	last atomic.Uint64
}

type memoryShard struct {
	mu     sync.RWMutex // guards the rest
	closed bool
	logs   map[Location]*memoryLog
	_      [64]byte // padding against false sharing of a cache line
}

// memoryLog is the log of a location. It is append-only, and a Forget replaces it, so that readers use its
// slice without a lock. Encoded notes are packed into blocks, because a replay is bound by memory access; the
// free rest of a block is the capacity of the last note. Most logs have a single note, which is stored
// inline.
type memoryLog struct {
	notes []Note
	first [1]Note // initial array of notes
}

// NewMemory returns an empty store in memory.
func NewMemory() Store {
	store := &memory{seed: maphash.MakeSeed()}
	for i := range store.shards {
		store.shards[i].logs = make(map[Location]*memoryLog)
	}
	return store
}

func (m *memory) shard(location Location) *memoryShard {
	return &m.shards[maphash.Comparable(m.seed, location)%memoryShards]
}

func (m *memory) Append(_ context.Context, location Location, note Note, ticket Ticket) {
	ticket.Settle(m.shard(location).append(location, note, &m.last))
}

func (s *memoryShard) append(location Location, note Note, last *atomic.Uint64) (Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	// Assign the position under the lock, so that positions grow along the log.
	note.Position = Position(last.Add(1))
	log := s.logs[location]
	if log == nil {
		log = &memoryLog{}
		log.notes = log.first[:0]
		s.logs[location] = log
	}
	log.append(note)
	return note.Position, nil
}

func (l *memoryLog) append(note Note) {
	if len(l.notes) == 0 {
		note.Encoded = slices.Clip(note.Encoded)
		l.notes = append(l.notes, note)
		return
	}
	last := l.notes[len(l.notes)-1].Encoded
	free := last[len(last):cap(last)]
	if len(free) < len(note.Encoded) {
		free = make([]byte, max(len(note.Encoded), min(len(l.notes)*len(note.Encoded), memoryBlock)))
	}
	note.Encoded = free[:copy(free, note.Encoded)]
	l.notes = append(l.notes, note)
}

func (m *memory) Range(ctx context.Context, location Location, span Span) iter.Seq2[[]Note, error] {
	return func(yield func([]Note, error) bool) {
		log, err := m.shard(location).log(location)
		if err != nil {
			yield(nil, err)
			return
		}
		for rest := span.Of(log); len(rest) > 0; {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			chunk := rest[:min(len(rest), memoryChunk)]
			if !yield(chunk, nil) {
				return
			}
			rest = rest[len(chunk):]
		}
	}
}

func (s *memoryShard) log(location Location) ([]Note, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	if log := s.logs[location]; log != nil {
		return log.notes, nil
	}
	return nil, nil
}

func (m *memory) Locations(ctx context.Context) iter.Seq2[Location, error] {
	return func(yield func(Location, error) bool) {
		for i := range m.shards {
			locations, err := m.shards[i].locations()
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(Location{}, err)
				return
			}
			for _, location := range locations {
				if !yield(location, nil) {
					return
				}
			}
		}
	}
}

func (s *memoryShard) locations() ([]Location, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	locations := make([]Location, 0, len(s.logs))
	for location := range s.logs {
		locations = append(locations, location)
	}
	return locations, nil
}

func (m *memory) Forget(ctx context.Context, before int64) (int, error) {
	count, now := 0, Now()
	for i := range m.shards {
		forgotten, err := m.shards[i].forget(before, now)
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

func (s *memoryShard) forget(before, now int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	count := 0
	for location, log := range s.logs {
		old := countOld(log.notes, before, now)
		switch old {
		case 0:
			continue
		case len(log.notes):
			delete(s.logs, location)
		default:
			// Copy: a subslice would keep the old notes in memory.
			young := &memoryLog{}
			for _, note := range log.notes[old:] {
				note.Encoded = bytes.Clone(note.Encoded)
				young.append(note)
			}
			s.logs[location] = young
		}
		count += old
	}
	return count, nil
}

// countOld returns the length of the prefix of a log that [Store.Forget] removes.
func countOld(log []Note, before, now int64) int {
	count := 0
	for i := range log {
		switch AgeOf(log[i].Time, before, now) {
		case Old:
			count = i + 1
		case Young:
			return count
		case Future:
		}
	}
	return count
}

func (m *memory) Close() error {
	for i := range m.shards {
		m.shards[i].close()
	}
	return nil
}

func (s *memoryShard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.logs = true, nil
}
