package pebblestore

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"example.com/routeguide/server/notes"
)

const (
	// recentLocations is how many locations are remembered, and recentBytes how much of each: at
	// most 64 MiB in all, and far less with notes as people write them.
	recentLocations = 1 << 14
	recentBytes     = 4 << 10
	// noteOverhead is what a note takes in memory besides its bytes.
	noteOverhead = 64
)

// recent remembers the whole logs of the locations to which notes came last, as long as they are
// short. Almost every reply is such a log, and opening an iterator for it costs far more than
// keeping the note. Only the committer changes what is remembered; its methods may be called
// concurrently all the same.
type recent struct {
	mu   sync.Mutex // guards logs
	logs *simplelru.LRU[notes.Location, recentLog]
}

// recentLog is a whole log, or says that it is too long. Its notes are only ever appended to.
type recentLog struct {
	notes   []notes.Note
	bytes   int
	tooLong bool
}

func newRecent() *recent {
	logs, err := simplelru.NewLRU[notes.Location, recentLog](recentLocations, nil)
	if err != nil {
		panic(err) // The size is positive.
	}
	return &recent{logs: logs}
}

// add appends a note to a log, unless that makes it too long.
func (l recentLog) add(note notes.Note) recentLog {
	l.bytes += len(note.Encoded) + noteOverhead
	if l.tooLong || l.bytes > recentBytes {
		return recentLog{tooLong: true}
	}
	l.notes = append(l.notes, note)
	return l
}

// get returns the log of a location. Its second result is false if it is not remembered.
func (r *recent) get(at notes.Location) ([]notes.Note, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	log, ok := r.logs.Get(at)
	return log.notes, ok && !log.tooLong
}

// knows returns whether something is remembered of a location, if only that its log is too long.
func (r *recent) knows(at notes.Location) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.logs.Get(at)
	return ok
}

// set remembers the log of a location.
func (r *recent) set(at notes.Location, log recentLog) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs.Add(at, log)
}

// add remembers a new note at a location of which something is remembered.
func (r *recent) add(at notes.Location, note notes.Note) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if log, ok := r.logs.Peek(at); ok {
		r.logs.Add(at, log.add(note))
	}
}

// forget remembers nothing of a location.
func (r *recent) forget(at notes.Location) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs.Remove(at)
}
