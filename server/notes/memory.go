package notes

import (
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
	// memoryChunk is how many notes a chunk of a range has at most.
	memoryChunk = 512
)

// memory is a [Store] that keeps notes until the process ends.
type memory struct {
	seed   maphash.Seed
	shards [memoryShards]memoryShard
	// last is the position that was given last, to any note: a location of which all is forgotten
	// leaves nothing behind, and still no position is given twice.
	last atomic.Uint64
}

type memoryShard struct {
	mu     sync.RWMutex // guards the rest
	closed bool
	// logs only ever lose notes at their starts and gain them at their ends, so the notes of a
	// slice once taken never change.
	logs map[Location][]Note
	_    [64]byte // keeps the locks of two shards out of one cache line
}

// NewMemory returns an empty store that keeps notes in memory, until it is closed.
func NewMemory() Store {
	store := &memory{seed: maphash.MakeSeed()}
	for i := range store.shards {
		store.shards[i].logs = make(map[Location][]Note)
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
	s.logs[at] = append(s.logs[at], note)
	return note.Position, nil
}

func (m *memory) Range(ctx context.Context, at Location, span Span) iter.Seq2[[]Note, error] {
	return func(yield func([]Note, error) bool) {
		log, err := m.shard(at).log(at)
		if err != nil {
			yield(nil, err)
			return
		}
		for chunk := range slices.Chunk(span.Of(log), memoryChunk) {
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

func (s *memoryShard) log(at Location) ([]Note, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	return s.logs[at], nil
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
	count := 0
	for i := range m.shards {
		forgotten, err := m.shards[i].forget(before)
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

func (s *memoryShard) forget(before int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	count := 0
	for at, log := range s.logs {
		old := slices.IndexFunc(log, func(note Note) bool { return note.Time >= before })
		switch {
		case old == 0:
			continue
		case old < 0:
			old = len(log)
			delete(s.logs, at)
		default:
			s.logs[at] = slices.Clone(log[old:]) // A slice of it would keep the old notes alive.
		}
		count += old
	}
	return count, nil
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
