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
	// groupNotes and groupBytes bound what is written at once, but for its last note.
	groupNotes = 4096
	groupBytes = 4 << 20
	// waitingBytes is how much may wait to be written before Append waits too.
	waitingBytes = 32 << 20
)

// appended is a note on its way to the disk.
type appended struct {
	at     notes.Location
	note   notes.Note
	ticket notes.Ticket
}

func (a *appended) size() int {
	return len(a.note.Encoded) + noteOverhead
}

// erasure is old notes on their way out.
type erasure struct {
	logs []oldNotes
	done chan<- error
}

// work is one thing for the committer to do.
type work struct {
	appended
	erase *erasure // if it is set, there is no note
}

// committer is the one goroutine that writes. It takes what all chats have appended meanwhile, gives
// it positions, writes and syncs it at once, and settles the tickets. So one sync serves many notes,
// and order, durability and the notes that are remembered are decided in one place.
type committer struct {
	db     *pebble.DB
	recent *logCache
	room   *space
	gate   queue.Gate // for notes
	inbox  *queue.Queue[work]
	done   chan struct{}  // is closed when the goroutine has ended
	last   notes.Position // was given last; only the goroutine looks at it
	synced atomic.Uint64  // the last position that is on the disk
	erased atomic.Int64   // bytes whose space is not freed yet
	// committed is Options.Committed.
	committed func(time.Duration)
}

func newCommitter(db *pebble.DB, recent *logCache, room *space, last notes.Position, committed func(time.Duration)) *committer {
	committer := &committer{
		db:     db,
		recent: recent,
		room:   room,
		gate:   room.gate,
		inbox:  queue.New[work](waitingBytes),
		done:   make(chan struct{}),
		last:   last,

		committed: committed,
	}
	committer.synced.Store(uint64(last))
	go committer.run()
	return committer
}

// append hands a note to the goroutine.
func (c *committer) append(ctx context.Context, note appended) {
	if err := c.inbox.Put(ctx, c.gate, work{appended: note}, note.size()); err != nil {
		note.ticket.Settle(0, err)
	}
}

// close waits until all that was handed over is done.
func (c *committer) close() {
	c.inbox.Close()
	<-c.done
}

func (c *committer) run() {
	defer close(c.done)
	var spare []work
	for open := true; open; {
		var items []work
		items, open = c.inbox.Take(spare)
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
		clear(items) // The notes and their owners may go.
		spare = items[:0]
		if cap(spare) > groupNotes {
			spare = nil
		}
	}
}

// groupSize returns how many of the first notes are written at once.
func groupSize(waiting []work) int {
	size, bytes := 0, 0
	for ; size < min(len(waiting), groupNotes) && bytes < groupBytes && waiting[size].erase == nil; size++ {
		bytes += waiting[size].size()
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
		c.recent.add(group[i].at, group[i].note)
	}
	if err := c.room.folder.look(); err != nil {
		// They are in the folder that was opened, wherever it is.
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

// write gives the notes of a group their positions and syncs them to the disk.
func (c *committer) write(group []work) error {
	c.room.check()
	if _, err := c.room.gate(); err != nil {
		return err
	}
	c.remember(group)
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
		appendKey(set.Key[:0], group[i].at, note.Position)
		appendValue(set.Value[:0], *note)
		if err := set.Finish(); err != nil {
			return err
		}
	}
	if err := batch.Set(lastKey, binary.BigEndian.AppendUint64(nil, uint64(last)), nil); err != nil {
		return err
	}
	c.room.wrote(batch.Len())
	// A failure does not come back from here: the engine reports it to Options.Fatal.
	start := time.Now()
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	if c.committed != nil {
		c.committed(time.Since(start))
	}
	c.last = last
	c.synced.Store(uint64(last))
	return batch.Close()
}

// remember looks up the logs of a group's locations that are not remembered yet, in the order of
// their keys and with one iterator, before the group is written.
func (c *committer) remember(group []work) {
	var unknown []notes.Location
	for i := range group {
		if !c.recent.knows(group[i].at) {
			unknown = append(unknown, group[i].at)
		}
	}
	slices.SortFunc(unknown, func(a, b notes.Location) int {
		return cmp.Or(cmp.Compare(a.Latitude, b.Latitude), cmp.Compare(a.Longitude, b.Longitude))
	})
	for unknown = slices.Compact(unknown); len(unknown) > 0; {
		known, err := c.rememberSome(unknown)
		if err != nil {
			// Whoever reads there will see the damage; it is no matter of the others.
			c.recent.set(unknown[known], cachedLog{tooLong: true})
			known++
		}
		unknown = unknown[known:]
	}
}

// rememberSome looks up logs until there is an error, and returns how many it has looked up.
func (c *committer) rememberSome(locations []notes.Location) (known int, err error) {
	iterator, err := c.db.NewIter(nil)
	if err != nil {
		return 0, err
	}
	defer iterator.Close()
	var prefix [prefixSize]byte
	for ; known < len(locations); known++ {
		log, err := readRecent(iterator, appendPrefix(prefix[:0], locations[known]))
		if err != nil {
			return known, err
		}
		c.recent.set(locations[known], log)
	}
	return known, nil
}

// readRecent reads the log with a prefix, as far as it is not too long. For a location that has no
// notes, which is most often the question, bloom filters answer.
func readRecent(iterator *pebble.Iterator, prefix []byte) (log cachedLog, err error) {
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

// erase erases the starts of some logs.
func (c *committer) erase(logs []oldNotes) error {
	batch := c.db.NewBatch()
	for _, old := range logs {
		if err := old.erase(batch); err != nil {
			return err
		}
	}
	// Should a loss of power bring some back, they are forgotten again.
	if err := batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	for _, old := range logs {
		c.recent.forget(old.at)
		c.erased.Add(int64(old.bytes))
	}
	return batch.Close()
}
