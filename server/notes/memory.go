package notes

import (
	"context"
	"hash/maphash"
	"iter"
	"slices"
	"sync"
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
}

type memoryShard struct {
	mu     sync.RWMutex // guards the rest
	closed bool
	// logs only ever grow at their ends, so the notes of a slice once taken never change.
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

func (m *memory) Append(_ context.Context, at Location, encoded []byte, ticket Ticket) {
	ticket.Settle(m.shard(at).append(at, encoded))
}

func (s *memoryShard) append(at Location, encoded []byte) (Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	log := s.logs[at]
	position := Position(len(log) + 1)
	s.logs[at] = append(log, Note{Position: position, Encoded: encoded})
	return position, nil
}

func (m *memory) Range(ctx context.Context, at Location, after, upto Position) iter.Seq2[[]Note, error] {
	return func(yield func([]Note, error) bool) {
		log, err := m.shard(at).log(at)
		if err != nil {
			yield(nil, err)
			return
		}
		end := Position(len(log))
		first, last := min(after, end), min(upto, end)
		if first >= last {
			return
		}
		for chunk := range slices.Chunk(log[first:last], memoryChunk) {
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
