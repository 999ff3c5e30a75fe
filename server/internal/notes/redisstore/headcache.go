package redisstore

import (
	lru "github.com/hashicorp/golang-lru/v2"

	"example.com/routeguide/server/internal/notes"
)

const (
	// headCacheLogs is the number of logs in the cache, and cachedHeadBytes the largest size of each: 16 MiB
	// in all.
	headCacheLogs   = 1 << 14
	cachedHeadBytes = 1 << 10
)

// headCache is an LRU cache of the heads of logs that this server has started: the reply to a first note is
// the note itself, which need not be read from Redis. Entries are immutable. A range that extends beyond an
// entry is read from Redis. Its methods may be called concurrently.
type headCache struct {
	logs *lru.Cache[notes.Location, []notes.Note]
}

func newHeadCache() headCache {
	logs, err := lru.New[notes.Location, []notes.Note](headCacheLogs)
	if err != nil {
		panic(err) // The size is positive.
	}
	return headCache{logs}
}

// add is called for every batch that was written, with the position of its first note.
func (c headCache) add(location notes.Location, position notes.Position, added []notes.Note) {
	if position > 1 {
		if first, ok := c.logs.Peek(location); ok && position <= notes.Position(len(first)) {
			c.logs.Remove(location) // Redis has lost the log, and started a new one.
		}
		return
	}
	bytes := 0
	for i := range added {
		added[i].Position = notes.Position(i + 1)
		bytes += len(added[i].Encoded) + noteOverhead
	}
	if bytes <= cachedHeadBytes {
		c.logs.Add(location, added)
	}
}

// read returns a span of a log. Its second result is false if the span is not in the cache.
func (c headCache) read(location notes.Location, span notes.Span) ([]notes.Note, bool) {
	first, ok := c.logs.Get(location)
	if !ok || span.Through > notes.Position(len(first)) {
		return nil, false
	}
	return span.Of(first), true
}
