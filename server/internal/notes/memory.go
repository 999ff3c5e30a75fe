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
	// memoryShards is how many locks the locations share: enough that two chats seldom meet.
	memoryShards = 256
	// memoryBlock is how many bytes of notes of one location lie together at most.
	memoryBlock = 32 << 10
	// memoryChunk is how many notes a chunk of a range has at most.
	memoryChunk = 512
)

// memory is a [Store] that keeps notes until the process ends.
type memory struct {
	seed   maphash.Seed // so that nobody can choose locations that share one lock
	shards [memoryShards]memoryShard
	// last is the position that was given last, to any note: a location of which all is forgotten
	// leaves nothing behind, and still no position is given twice.
	last atomic.Uint64
}

type memoryShard struct {
	mu     sync.RWMutex // guards the rest
	closed bool
	logs   map[Location]*memoryLog
	_      [64]byte // keeps the locks of two shards out of one cache line
}

// memoryLog is the log of a location. It only ever loses notes at its start and gains them at its end, so
// the notes of a slice once taken never change. The encoded notes lie one after the other in memory, since
// the processor waits for memory most of the time that a replay takes: what is left of a block is the
// capacity of the last note. Most logs have one note only, which lies where it is.
type memoryLog struct {
	notes []Note
	first [1]Note
}

// NewMemory returns an empty store that keeps notes in memory, until it is closed.
func NewMemory() Store {
	store := &memory{seed: maphash.MakeSeed()}
	for i := range store.shards {
		store.shards[i].logs = make(map[Location]*memoryLog)
	}
	return store
}

func (m *memory) shard(at Location) *memoryShard {
	return &m.shards[maphash.Comparable(m.seed, at)%memoryShards]
}

func (m *memory) Append(_ context.Context, at Location, note Note, ticket Ticket) {
	ticket.Settle(m.shard(at).append(at, note, &m.last))
}

func (s *memoryShard) append(at Location, note Note, last *atomic.Uint64) (Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	// The position is taken under the lock, so that positions grow along the log.
	note.Position = Position(last.Add(1))
	log := s.logs[at]
	if log == nil {
		log = &memoryLog{}
		log.notes = log.first[:0]
		s.logs[at] = log
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
	room := last[len(last):cap(last)]
	if len(room) < len(note.Encoded) {
		room = make([]byte, max(len(note.Encoded), min(len(l.notes)*len(note.Encoded), memoryBlock)))
	}
	note.Encoded = room[:copy(room, note.Encoded)]
	l.notes = append(l.notes, note)
}

func (m *memory) Range(ctx context.Context, at Location, span Span) iter.Seq2[[]Note, error] {
	return func(yield func([]Note, error) bool) {
		log, err := m.shard(at).log(at)
		if err != nil {
			yield(nil, err)
			return
		}
		for left := span.Of(log); len(left) > 0; {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			chunk := left[:min(len(left), memoryChunk)]
			if !yield(chunk, nil) {
				return
			}
			left = left[len(chunk):]
		}
	}
}

func (s *memoryShard) log(at Location) ([]Note, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	if log := s.logs[at]; log != nil {
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
			for _, at := range locations {
				if !yield(at, nil) {
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
	for at := range s.logs {
		locations = append(locations, at)
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
	for at, log := range s.logs {
		old := countOld(log.notes, before, now)
		switch old {
		case 0:
			continue
		case len(log.notes):
			delete(s.logs, at)
		default:
			// A slice of it would keep the old notes alive.
			left := &memoryLog{}
			for _, note := range log.notes[old:] {
				note.Encoded = bytes.Clone(note.Encoded)
				left.append(note)
			}
			s.logs[at] = left
		}
		count += old
	}
	return count, nil
}

// countOld returns how many notes at the start of a log are to be forgotten.
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
