package pebblestore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
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
	// noteOverhead is the memory of a queued note besides the encoded note, in bytes.
	noteOverhead = 128
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
	return len(n.note.Encoded) + len(n.note.ID) + noteOverhead
}

// erasure asks the committer to delete old notes of an epoch, or the whole epoch.
type erasure struct {
	epoch *epoch
	logs  []oldNotes
	drop  bool
	done  chan<- error // receives the result; buffered
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
	store    *Store
	db       *pebble.DB
	cache    *logCache
	space    *space
	gate     queue.Gate // refuses notes while there is no space
	queue    *queue.Queue[work]
	done     chan struct{}       // closed when the goroutine has ended
	synced   atomic.Uint64       // last position on the disk
	onCommit func(time.Duration) // Options.OnCommit; nil is none

	// The goroutine owns the rest.
	state   state
	missed  bool  // a group was written and not announced
	idPart  int64 // day part in which IDs were last expired
	group   group
	runs    []run
	changes []byte
}

func newCommitter(store *Store, state state, onCommit func(time.Duration)) *committer {
	committer := &committer{
		store:    store,
		db:       store.db,
		cache:    store.cache,
		space:    store.space,
		gate:     store.space.gate,
		queue:    queue.New[work](queueBytes),
		done:     make(chan struct{}),
		state:    state,
		onCommit: onCommit,
	}
	committer.synced.Store(uint64(state.last))
	go committer.run()
	return committer
}

// append queues a note. It blocks while the queue is full: backpressure on the chats.
func (c *committer) append(ctx context.Context, note pendingNote) {
	if err := c.queue.Put(ctx, c.gate, work{pendingNote: note}, note.size()); err != nil {
		note.ticket.Settle(notes.Receipt{}, err)
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
				erasure.done <- c.erase(erasure)
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
func (c *committer) commit(items []work) {
	defer func() {
		clear(c.group.arrivals)
		clear(c.group.repeated)
		c.group.arrivals, c.group.repeated, c.runs = c.group.arrivals[:0], c.group.repeated[:0], c.runs[:0]
	}()
	c.arrive(items)
	var err error
	if len(c.group.arrivals) > 0 {
		err = c.write()
	}
	if err == nil {
		if err = c.space.folder.check(); err != nil {
			// The notes are in the folder that was opened, which may have been moved or deleted.
			err = fmt.Errorf("%w: %w", notes.ErrUnknown, err)
			c.missed = true
		}
	}
	if err != nil {
		for i := range items {
			items[i].ticket.Settle(notes.Receipt{}, err)
		}
		return
	}
	for i := range c.runs {
		run := &c.runs[i]
		for j, arrival := range c.group.arrivals[run.from:run.to] {
			note := &arrival.work.note
			alone := run.known == 0 && j == 0
			arrival.work.ticket.Settle(notes.Receipt{Position: note.Position, Time: note.Time, Alone: alone}, nil)
		}
	}
	for i := range c.group.repeated {
		c.group.repeated[i].settle()
	}
	if c.store.feed.Active() {
		c.announce(items)
	}
	c.missed = false
}

// announce announces the notes of a group, in the order of their positions.
func (c *committer) announce(items []work) {
	changes := make([]notes.Change, 0, len(c.group.arrivals))
	for i := range items {
		if note := items[i].note; note.Position > 0 {
			changes = append(changes, notes.Change{Sequence: notes.Sequence(note.Position), Location: items[i].location, Note: note})
		}
	}
	if len(changes) > 0 || c.missed {
		c.store.feed.Announce(notes.Announcement{Missed: c.missed, Changes: changes})
	}
}

// write assigns the positions of a group, writes it as one batch and syncs it.
func (c *committer) write() error {
	c.space.check(c.space.folder.check())
	if _, err := c.space.gate(); err != nil {
		return err
	}
	list := *c.store.epochs.Load()
	active := list.active()
	size := 0
	completed := c.state.last-active.first+1 >= notes.Position(c.store.epochNotes) || c.state.bytes >= epochBytes
	next := c.state
	if completed {
		next.bytes, next.oldest = 0, math.MaxInt64
	}
	c.changes = c.changes[:0]
	for _, arrival := range c.group.arrivals {
		note := &arrival.work.note
		next.last++
		note.Position = next.last
		next.oldest = min(next.oldest, note.Time)
		size += keySize + valueSize(*note)
		c.changes = binary.BigEndian.AppendUint64(c.changes, arrival.z)
	}
	next.bytes += int64(size)
	batch := c.db.NewBatchWithSize(size + len(c.group.arrivals)*(8+8) + 256)
	if completed {
		var err error
		if list, err = c.begin(batch, list); err != nil {
			return err
		}
		active = list.active()
	}
	if err := batch.Set(changeKey(c.state.last+1), c.changes, nil); err != nil {
		return err
	}
	c.load(list)
	if err := c.set(batch, active); err != nil {
		return err
	}
	if err := batch.Set(lastKey, next.value(), nil); err != nil {
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
	active.oldest.Store(next.oldest)
	if completed {
		c.store.epochs.Store(&list)
	}
	c.state = next
	c.remember()
	c.synced.Store(uint64(next.last))
	if completed {
		select {
		case c.store.completed <- struct{}{}:
		default: // The finisher is about to look.
		}
	}
	return batch.Close()
}

// set adds the notes of a group to a batch, and their locations to the filter of the active epoch.
func (c *committer) set(batch *pebble.Batch, active *epoch) error {
	filter := active.filter.Load()
	for _, run := range c.runs {
		filter.add(run.z)
	}
	for _, arrival := range c.group.arrivals {
		note := &arrival.work.note
		set := batch.SetDeferred(keySize, valueSize(*note))
		appendKey(set.Key[:0], active.number, arrival.z, note.Position)
		appendValue(set.Value[:0], *note)
		if err := set.Finish(); err != nil {
			return err
		}
		if note.ID != "" {
			if err := c.setID(batch, arrival.z, *note); err != nil {
				return err
			}
		}
	}
	return nil
}

// setID adds the ID of a note to a batch.
func (c *committer) setID(batch *pebble.Batch, z uint64, note notes.Note) error {
	now := notes.Now()
	if part := dayPartOf(now); part != c.idPart {
		if err := expireIDs(batch, now); err != nil {
			return err
		}
		c.idPart = part
	}
	if dayPartOf(note.Time) < dayPartOf(now)-partsBack {
		return nil // It has expired.
	}
	return batch.Set(idKey(dayPartOf(note.Time), z, note.ID), newIdentified(note).value(), nil)
}

// begin adds the beginning of a new epoch to a batch, and returns the list with it. It ends the replay of old changes.
func (c *committer) begin(batch *pebble.Batch, list epochs) (epochs, error) {
	complete := list.active()
	begun := &epoch{number: complete.number + 1, first: c.state.last + 1}
	begun.filter.Store(newFilter(c.store.epochNotes))
	begun.oldest.Store(math.MaxInt64)
	for _, epoch := range []*epoch{complete, begun} {
		if err := batch.Set(epoch.key(), epoch.value(), nil); err != nil {
			return nil, err
		}
	}
	if kept := notes.Position(c.store.replayed + groupNotes); begun.first > kept {
		if err := batch.DeleteRange([]byte{changeTag}, changeKey(begun.first-kept), nil); err != nil {
			return nil, err
		}
	}
	return append(slices.Clip(list), begun), nil
}

// erase deletes the old notes of some logs of an epoch, or the epoch.
func (c *committer) erase(erasure *erasure) error {
	batch := c.db.NewBatch()
	for _, old := range erasure.logs {
		if err := old.erase(batch); err != nil {
			return err
		}
	}
	if erasure.drop {
		if err := batch.DeleteRange(erasure.epoch.start(), erasure.epoch.end(), nil); err != nil {
			return err
		}
		if err := batch.Delete(erasure.epoch.key(), nil); err != nil {
			return err
		}
	}
	// No sync is needed: notes that a loss of power brings back are forgotten by the next Forget.
	if err := batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	for _, old := range erasure.logs {
		c.cache.remove(old.z)
		old.epoch.erased.Add(int64(old.bytes))
	}
	if erasure.drop {
		c.store.drop(erasure.epoch)
	}
	return batch.Close()
}
