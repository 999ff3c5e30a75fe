package pebblestore

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"example.com/routeguide/server/internal/notes"
)

const (
	// logCacheBytes is the size of the cache, and cachedLogBytes the largest log in it, in bytes. It holds a
	// few hundred thousand short logs: as many as there may be notes whose replies are pending.
	logCacheBytes  = 64 << 20
	cachedLogBytes = 4 << 10
	// noteOverhead and logOverhead are the memory of a note and of a log besides their encoded notes, in bytes.
	noteOverhead = 64
	logOverhead  = 160
)

// logCache is an LRU cache of whole short logs, by location. Almost every reply is such a log, and opening an
// iterator for it costs far more than caching the note. Only the committer writes to the cache. Its methods
// may be called concurrently.
type logCache struct {
	mu    sync.Mutex // guards the rest
	logs  *simplelru.LRU[notes.Location, cachedLog]
	bytes int // total of all entries
}

// cachedLog is a whole log, or the mark that the log is too long to cache. Its notes are append-only.
type cachedLog struct {
	notes   []notes.Note
	bytes   int // encoded notes and noteOverhead
	tooLong bool
}

func newLogCache() *logCache {
	cache := &logCache{}
	logs, err := simplelru.NewLRU(logCacheBytes/logOverhead, func(_ notes.Location, log cachedLog) {
		cache.bytes -= log.bytes + logOverhead
	})
	if err != nil {
		panic(err) // The size is positive.
	}
	cache.logs = logs
	return cache
}

// add returns the log with a note appended, or marked as too long.
func (l cachedLog) add(note notes.Note) cachedLog {
	l.bytes += len(note.Encoded) + noteOverhead
	if l.tooLong || l.bytes > cachedLogBytes {
		return cachedLog{tooLong: true}
	}
	l.notes = append(l.notes, note)
	return l
}

// get returns the log of a location. Its second result is false if the log is not cached.
func (c *logCache) get(location notes.Location) ([]notes.Note, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, ok := c.logs.Get(location)
	return log.notes, ok && !log.tooLong
}

// contains returns whether a location has an entry, be it the mark that its log is too long.
func (c *logCache) contains(location notes.Location) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.logs.Get(location)
	return ok
}

// set sets the entry of a location.
func (c *logCache) set(location notes.Location, log cachedLog) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(location, log)
}

// put sets the entry of a location and evicts the least recently used ones. The caller holds c.mu.
func (c *logCache) put(location notes.Location, log cachedLog) {
	if old, ok := c.logs.Peek(location); ok {
		c.bytes -= old.bytes + logOverhead
	}
	c.bytes += log.bytes + logOverhead
	c.logs.Add(location, log)
	for c.bytes > logCacheBytes {
		c.logs.RemoveOldest()
	}
}

// add appends a new note to the entry of its location, if there is one.
func (c *logCache) add(location notes.Location, note notes.Note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if log, ok := c.logs.Peek(location); ok {
		c.put(location, log.add(note))
	}
}

// remove removes the entry of a location.
func (c *logCache) remove(location notes.Location) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logs.Remove(location)
}
