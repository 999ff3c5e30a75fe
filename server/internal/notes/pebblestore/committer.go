package pebblestore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/queue"
)

const (
	// Limits of a commit group, in notes and bytes. The last note may exceed groupBytes.
	groupNotes = 4096
	groupBytes = 4 << 20
	// queueBytes is the size of the queue, in bytes, from which on Append blocks.
	queueBytes = 32 << 20
)

// pendingNote is a note that is not yet committed, with its ticket.
type pendingNote struct {
	location notes.Location
	note     notes.Note
	ticket   notes.Ticket
}

func (n *pendingNote) size() int {
	return len(n.note.Encoded) + noteOverhead
}

// erasure asks the committer to delete old notes.
type erasure struct {
	logs []oldNotes
	done chan<- error // receives the result; buffered
}

// work is one item of the committer's queue: a note, or an erasure.
type work struct {
	pendingNote
	erase *erasure // nil for a note
}

// committer implements group commit. It is the only goroutine that writes: it takes all notes that chats have
// appended since the last group, assigns their positions, writes and syncs them as one batch, and settles their
// tickets. Order, durability and the contents of the cache are decided in this one place.
type committer struct {
	db          *pebble.DB
	cache       *logCache
	space       *space
	gate        queue.Gate // refuses notes while there is no space
	queue       *queue.Queue[work]
	done        chan struct{}       // closed when the goroutine has ended
	last        notes.Position      // last position assigned; owned by the goroutine
	synced      atomic.Uint64       // last position on the disk
	erasedBytes atomic.Int64        // deleted bytes whose space is not reclaimed
	onCommit    func(time.Duration) // Options.OnCommit; nil is none
}

func newCommitter(db *pebble.DB, cache *logCache, space *space, last notes.Position, onCommit func(time.Duration)) *committer {
	committer := &committer{
		db:       db,
		cache:    cache,
		space:    space,
		gate:     space.gate,
		queue:    queue.New[work](queueBytes),
		done:     make(chan struct{}),
		last:     last,
		onCommit: onCommit,
	}
	committer.synced.Store(uint64(last))
	go committer.run()
	return committer
}

// append queues a note. It blocks while the queue is full: backpressure on the chats.
func (c *committer) append(ctx context.Context, note pendingNote) {
	if err := c.queue.Put(ctx, c.gate, work{pendingNote: note}, note.size()); err != nil {
		note.ticket.Settle(0, err)
	}
}

// close drains the queue and joins the goroutine.
func (c *committer) close() {
	c.queue.Close()
	<-c.done
}

func (c *committer) run() {
	defer close(c.done)
	var buffer []work
	for open := true; open; {
		var items []work
		items, open = c.queue.Take(buffer)
		for rest := items; len(rest) > 0; {
			if erasure := rest[0].erase; erasure != nil {
				erasure.done <- c.erase(erasure.logs)
				rest = rest[1:]
				continue
			}
			size := groupSize(rest)
			c.commit(rest[:size])
			rest = rest[size:]
		}
		clear(items) // Release the notes and their owners to the garbage collector.
		buffer = items[:0]
		if cap(buffer) > groupNotes {
			buffer = nil
		}
	}
}

// groupSize returns the number of queued notes in the next commit group.
func groupSize(queued []work) int {
	size, bytes := 0, 0
	for ; size < min(len(queued), groupNotes) && bytes < groupBytes && queued[size].erase == nil; size++ {
		bytes += queued[size].size()
	}
	return size
}

// commit writes a group of notes and settles their tickets.
func (c *committer) commit(group []work) {
	if err := c.write(group); err != nil {
		for i := range group {
			group[i].ticket.Settle(0, err)
		}
		return
	}
	for i := range group {
		c.cache.add(group[i].location, group[i].note)
	}
	if err := c.space.folder.check(); err != nil {
		// The notes are in the folder that was opened, which may have been moved or deleted.
		err = fmt.Errorf("%w: %w", notes.ErrUnknown, err)
		for i := range group {
			group[i].ticket.Settle(0, err)
		}
		return
	}
	for i := range group {
		group[i].ticket.Settle(group[i].note.Position, nil)
	}
}

// write assigns the positions of a group, writes it as one batch and syncs it.
func (c *committer) write(group []work) error {
	c.space.check(c.space.folder.check())
	if _, err := c.space.gate(); err != nil {
		return err
	}
	c.loadLogs(group)
	size := 0
	for i := range group {
		size += len(group[i].note.Encoded)
	}
	batch := c.db.NewBatchWithSize(size + len(group)*(keySize+timeSize+8) + 64)
	last := c.last
	for i := range group {
		last++
		note := &group[i].note
		note.Position = last
		set := batch.SetDeferred(keySize, timeSize+len(note.Encoded))
		appendKey(set.Key[:0], group[i].location, note.Position)
		appendValue(set.Value[:0], *note)
		if err := set.Finish(); err != nil {
			return err
		}
	}
	if err := batch.Set(lastKey, binary.BigEndian.AppendUint64(nil, uint64(last)), nil); err != nil {
		return err
	}
	c.space.wrote(batch.Len())
	// Commit does not return I/O errors: the engine reports them to Options.Fatal.
	start := time.Now()
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	if c.onCommit != nil {
		c.onCommit(time.Since(start))
	}
	c.last = last
	c.synced.Store(uint64(last))
	return batch.Close()
}

// loadLogs loads the logs of the group's locations that are not in the cache, before the group is written. It
// reads them in key order with one iterator.
func (c *committer) loadLogs(group []work) {
	var missing []notes.Location
	for i := range group {
		if !c.cache.contains(group[i].location) {
			missing = append(missing, group[i].location)
		}
	}
	slices.SortFunc(missing, func(a, b notes.Location) int {
		return cmp.Or(cmp.Compare(a.Latitude, b.Latitude), cmp.Compare(a.Longitude, b.Longitude))
	})
	for missing = slices.Compact(missing); len(missing) > 0; {
		loaded, err := c.loadSome(missing)
		if err != nil {
			// A damaged log fails reads of its location only: keep it out of the cache and go on.
			c.cache.set(missing[loaded], cachedLog{tooLong: true})
			loaded++
		}
		missing = missing[loaded:]
	}
}

// loadSome loads logs until the first error. It returns the number of logs loaded.
func (c *committer) loadSome(locations []notes.Location) (loaded int, err error) {
	iterator, err := c.db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	defer iterator.Close()
	var prefix [prefixSize]byte
	for ; loaded < len(locations); loaded++ {
		log, err := readLog(iterator, appendPrefix(prefix[:0], locations[loaded]))
		if err != nil {
			return loaded, err
		}
		c.cache.set(locations[loaded], log)
	}
	return loaded, nil
}

// readLog reads the log with a prefix until it is too long for the cache. Most lookups are of locations without
// notes, which the bloom filters answer.
func readLog(iterator *pebble.Iterator, prefix []byte) (log cachedLog, err error) {
	for valid := iterator.SeekPrefixGE(prefix); valid && !log.tooLong; valid = iterator.Next() {
		value, err := iterator.ValueAndErr()
		if err != nil {
			return log, err
		}
		_, note, err := parseNote(iterator.Key(), bytes.Clone(value))
		if err != nil {
			return log, err
		}
		log = log.add(note)
	}
	return log, iterator.Error()
}

// erase deletes the old notes of some logs.
func (c *committer) erase(logs []oldNotes) error {
	batch := c.db.NewBatch()
	for _, old := range logs {
		if err := old.erase(batch); err != nil {
			return err
		}
	}
	// No sync is needed: notes that a loss of power brings back are forgotten by the next Forget.
	if err := batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	for _, old := range logs {
		c.cache.remove(old.location)
		c.erasedBytes.Add(int64(old.bytes))
	}
	return batch.Close()
}
