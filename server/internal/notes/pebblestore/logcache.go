package pebblestore

import (
	"encoding/binary"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"example.com/routeguide/server/internal/notes"
)

const (
	// logCacheBytes is the size of the cache in bytes.
	logCacheBytes = 96 << 20
	// cachedLogBytes is how much of a log is read from the disk, in bytes, unless reads ask for a number of the newest notes.
	cachedLogBytes = 4 << 10
	// If they do, a log keeps that number of notes before each of the last lateNotes positions: replies lag behind the notes
	// that are added.
	lateNotes = 1 << 17
	// longLogBytes is the size of a log, in bytes, from which on it loses its older half when it grows.
	longLogBytes = 4 << 20
	// logOverhead is the memory of a log besides its notes, in bytes.
	logOverhead = 96
	// evictionSample is the number of logs of which one is evicted.
	evictionSample = 5
)

// logCache is a cache of the logs that were added to lately, by the number of their location in Z-order. Its eviction is a
// sampled LRU: of a few random logs, the one that was added to longest ago has to go. Opening an iterator for a reply costs
// far more than caching the note. Only the committer writes to the cache. Its methods may be called concurrently.
type logCache struct {
	newest atomic.Int64 // Span.Newest of the latest read

	mu    sync.Mutex // guards the rest
	logs  map[uint64]*cachedLog
	bytes int            // of logs
	last  notes.Position // of the note that was added last
}

// cachedLog is a log, or the newest notes of one. It is append-only, so that what was read from it stays as it is. It has
// few pointers, for the garbage collector.
type cachedLog struct {
	data    []byte         // position(8) and value of each note
	ends    []uint32       // of the notes in data
	partial bool           // the log has older notes
	used    notes.Position // of the note that was last added to any log when this one was last added to
}

func newLogCache() *logCache {
	return &logCache{logs: make(map[uint64]*cachedLog)}
}

func (l *cachedLog) add(note notes.Note) {
	l.data = appendValue(binary.BigEndian.AppendUint64(grow(l.data, 8+valueSize(note)), uint64(note.Position)), note)
	l.ends = append(grow(l.ends, 1), uint32(len(l.data)))
}

// grow returns a slice that has room for n more elements, and little more: most logs stay short.
func grow[T any](slice []T, n int) []T {
	if len(slice)+n <= cap(slice) {
		return slice
	}
	return append(slices.Grow([]T(nil), len(slice)+n+len(slice)/8), slice...)
}

// bytes returns the memory of the log.
func (l *cachedLog) bytes() int {
	return cap(l.data) + 4*cap(l.ends) + logOverhead
}

// start returns the offset of a note in data.
func (l *cachedLog) start(i int) uint32 {
	if i == 0 {
		return 0
	}
	return l.ends[i-1]
}

func (l *cachedLog) position(i int) notes.Position {
	return notes.Position(binary.BigEndian.Uint64(l.data[l.start(i):]))
}

// through returns the number of notes up to a position.
func (l *cachedLog) through(position notes.Position) int {
	return sort.Search(len(l.ends), func(i int) bool { return l.position(i) > position })
}

// read appends the first notes of a span, at most chunkNotes. Its second result is false if the span is not all there.
func (l *cachedLog) read(found []notes.Note, span notes.Span) ([]notes.Note, bool) {
	first, end := l.through(span.After), l.through(span.Through)
	enough := !l.partial || len(l.ends) > 0 && span.After+1 >= l.position(0)
	if span.Newest > 0 && end-first >= span.Newest {
		first, enough = end-span.Newest, true
	}
	if !enough {
		return found, false
	}
	for i := first; i < min(end, first+chunkNotes); i++ {
		start := l.start(i)
		found = append(found, parseValue(l.position(i), l.data[start+8:l.ends[i]]))
	}
	return found, true
}

// wanted returns how much of a log is worth a place in the cache: a number of its newest notes, or of their bytes.
func (c *logCache) wanted() (count, size int) {
	if newest := int(c.newest.Load()); newest > 0 {
		return min(newest, chunkNotes), 0
	}
	return 0, cachedLogBytes
}

// evict makes room. The caller holds c.mu.
func (c *logCache) evict() {
	for c.bytes > logCacheBytes {
		var victim uint64
		var used notes.Position
		sampled := 0
		for z, log := range c.logs { // from a random one on
			if sampled == 0 || log.used < used {
				victim, used = z, log.used
			}
			if sampled++; sampled == evictionSample {
				break
			}
		}
		c.delete(victim)
	}
}

// delete removes an entry. The caller holds c.mu.
func (c *logCache) delete(z uint64) {
	if log := c.logs[z]; log != nil {
		c.bytes -= log.bytes()
		delete(c.logs, z)
	}
}

// read appends the first notes of a span of the log of a location, at most chunkNotes. Its second result is false if the
// cache does not have all of the span.
func (c *logCache) read(found []notes.Note, z uint64, span notes.Span) ([]notes.Note, bool) {
	if c.newest.Load() != int64(span.Newest) {
		c.newest.Store(int64(span.Newest))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	log := c.logs[z]
	if log == nil {
		return found, false
	}
	return log.read(found, span)
}

// length returns the number of notes of a location that are in the cache, and one more if the log has others. Its second
// result is false if there is no entry.
func (c *logCache) length(z uint64) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log := c.logs[z]
	if log == nil {
		return 0, false
	}
	if log.partial {
		return len(log.ends) + 1, true
	}
	return len(log.ends), true
}

// set sets the entry of a location that has none.
func (c *logCache) set(z uint64, log *cachedLog) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log.used = c.last
	c.logs[z] = log
	c.bytes += log.bytes()
	c.evict()
}

// add appends a new note to the entry of its location, if there is one.
func (c *logCache) add(z uint64, note notes.Note) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = note.Position
	log := c.logs[z]
	if log == nil {
		return
	}
	c.bytes -= log.bytes()
	if len(log.data)+8+valueSize(note) > cap(log.data) {
		c.shorten(log)
	}
	log.add(note)
	log.used = c.last
	c.bytes += log.bytes()
	c.evict()
}

// shorten drops old notes of a log that is about to be copied because it grows, if that is worth it.
func (c *logCache) shorten(log *cachedLog) {
	old := 0
	if newest := int(c.newest.Load()); newest > 0 {
		old = log.through(max(c.last, lateNotes)-lateNotes) - newest
	}
	if len(log.data) > longLogBytes {
		old = max(old, len(log.ends)/2)
	}
	if old <= len(log.ends)/4 {
		return
	}
	start := log.start(old)
	ends := make([]uint32, 0, len(log.ends)-old)
	for _, end := range log.ends[old:] {
		ends = append(ends, end-start)
	}
	log.data, log.ends, log.partial = log.data[start:], ends, true
}

// remove removes the entry of a location.
func (c *logCache) remove(z uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delete(z)
}
