package redisstore

import (
	lru "github.com/hashicorp/golang-lru/v2"

	"example.com/routeguide/server/internal/notes"
)

const (
	// begunLogs is how many logs are remembered, and begunBytes how long the notes of each may be: at
	// most 16 MiB in all.
	begunLogs  = 1 << 14
	begunBytes = 1 << 10
)

// headCache remembers the starts of the logs that this server has headCache last: a first note is answered with
// itself, which need not be read from Redis. What is remembered never changes, and a range that goes
// on behind it is not answered by it. Its methods may be called concurrently.
type headCache struct {
	logs *lru.Cache[notes.Location, []notes.Note]
}

func newBegun() headCache {
	logs, err := lru.New[notes.Location, []notes.Note](begunLogs)
	if err != nil {
		panic(err) // The size is positive.
	}
	return headCache{logs}
}

// add hears of new notes at a location, the first of which has a position.
func (b headCache) add(at notes.Location, position notes.Position, added []notes.Note) {
	if position > 1 {
		if first, ok := b.logs.Peek(at); ok && position <= notes.Position(len(first)) {
			b.logs.Remove(at) // Redis has lost the log, and begun it anew.
		}
		return
	}
	bytes := 0
	for i := range added {
		added[i].Position = notes.Position(i + 1)
		bytes += len(added[i].Encoded) + noteOverhead
	}
	if bytes <= begunBytes {
		b.logs.Add(at, added)
	}
}

// read returns the span of a log that it remembers. Its second result is false if it does not.
func (b headCache) read(at notes.Location, span notes.Span) ([]notes.Note, bool) {
	first, ok := b.logs.Get(at)
	if !ok || span.Through > notes.Position(len(first)) {
		return nil, false
	}
	return span.Of(first), true
}
