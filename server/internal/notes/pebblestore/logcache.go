package pebblestore

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"example.com/routeguide/server/internal/notes"
)

const (
	// recentBytes is how much is remembered in all, and recentLogBytes how much of one location. It is
	// enough for a few hundred thousand short logs: as many as there may be notes that are kept and
	// whose replies still wait for clients.
	recentBytes    = 64 << 20
	recentLogBytes = 4 << 10
	// noteOverhead and logOverhead are what a note and a log take in memory besides their bytes.
	noteOverhead = 64
	logOverhead  = 160
)

// logCache remembers the whole logs of the locations to which notes came last, as long as they are
// short. Almost every reply is such a log, and opening an iterator for it costs far more than
// keeping the note. Only the committer changes what is remembered; its methods may be called
// concurrently all the same.
type logCache struct {
	mu    sync.Mutex // guards the rest
	logs  *simplelru.LRU[notes.Location, cachedLog]
	bytes int // of all logs
}

// cachedLog is a whole log, or says that it is too long. Its notes are only ever appended to.
type cachedLog struct {
	notes   []notes.Note
	bytes   int
	tooLong bool
}

func newRecent() *logCache {
	recent := &logCache{}
	logs, err := simplelru.NewLRU(recentBytes/logOverhead, func(_ notes.Location, log cachedLog) {
		recent.bytes -= log.bytes + logOverhead
	})
	if err != nil {
		panic(err) // The size is positive.
	}
	recent.logs = logs
	return recent
}

// add appends a note to a log, unless that makes it too long.
func (l cachedLog) add(note notes.Note) cachedLog {
	l.bytes += len(note.Encoded) + noteOverhead
	if l.tooLong || l.bytes > recentLogBytes {
		return cachedLog{tooLong: true}
	}
	l.notes = append(l.notes, note)
	return l
}

// get returns the log of a location. Its second result is false if it is not remembered.
func (r *logCache) get(at notes.Location) ([]notes.Note, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	log, ok := r.logs.Get(at)
	return log.notes, ok && !log.tooLong
}

// knows returns whether something is remembered of a location, if only that its log is too long.
func (r *logCache) knows(at notes.Location) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.logs.Get(at)
	return ok
}

// set remembers the log of a location.
func (r *logCache) set(at notes.Location, log cachedLog) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(at, log)
}

// put makes log what is remembered of a location. The caller holds r.mu.
func (r *logCache) put(at notes.Location, log cachedLog) {
	if old, ok := r.logs.Peek(at); ok {
		r.bytes -= old.bytes + logOverhead
	}
	r.bytes += log.bytes + logOverhead
	r.logs.Add(at, log)
	for r.bytes > recentBytes {
		r.logs.RemoveOldest()
	}
}

// add remembers a new note at a location of which something is remembered.
func (r *logCache) add(at notes.Location, note notes.Note) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if log, ok := r.logs.Peek(at); ok {
		r.put(at, log.add(note))
	}
}

// forget remembers nothing of a location.
func (r *logCache) forget(at notes.Location) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs.Remove(at)
}
