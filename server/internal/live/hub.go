// Package live is the fan-out of notes: a hub delivers each note that a store announces to those who follow its location, or a
// rectangle around it. The log of a location is the truth, and an announcement a hint: a follower that has missed one, or that reads
// too slowly, catches up from the store. The package knows the messages of NoteService and the HTTP streams of package wire, but
// no RPC protocol.
package live

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

const (
	// reconcileInterval is the interval at which the hub compares what was announced with the ends of the partitions: announcements
	// may be lost. It is also the longest time that the hub stays subscribed without followers, or half of it.
	reconcileInterval = 2 * time.Second
	// storeTimeout bounds the reads of the hub's own goroutine.
	storeTimeout = 5 * time.Second
	// heartbeatSlots is the number of groups of followers that get their heartbeats in turn, one a second.
	heartbeatSlots = 15
	// flushInterval is how long what was delivered may wait for the next notes, to be written together.
	flushInterval = time.Millisecond
	// maxInbox is the size of the announcements that wait for the hub, in bytes. Further ones are dropped: followers catch up.
	maxInbox = 32 << 20
	// maxSpare is the capacity of a slice for announcements from which on it is not used again.
	maxSpare = 1 << 10
	// changeOverhead is the memory of a waiting change besides its note, in bytes.
	changeOverhead = 128
)

// ErrOvertaken says that notes were missed, and cannot be read any more: retention has forgotten them, or the store's data were
// restored.
var ErrOvertaken = errors.New("notes were forgotten before they were sent (read faster, or reconnect sooner)")

// Options configure a [Hub]. Only Store is required.
type Options struct {
	// Store keeps and announces the notes.
	Store notes.Store
	// Retention is the age from which on the store forgets notes; 0 is never.
	Retention time.Duration
	// MaxLocations is the largest number of locations in the snapshot of a rectangle; 0 is no limit.
	MaxLocations int
	// Draining is the cause of a call's context after which FollowNotes sends what was kept so far, before it returns.
	Draining error
	// Logger gets a line when announcements do not come through; nil is none.
	Logger *slog.Logger
}

// A Hub delivers the notes of a store. Its methods may be called concurrently.
//
// It subscribes to the store while there are followers. One goroutine delivers: it queues notes on the HTTP streams of idle
// followers itself, without waking their goroutines, and never blocks. Another one looks for announcements that were missed: it waits for
// the store.
type Hub struct {
	options Options
	opened  time.Time
	counts  counts
	running sync.WaitGroup
	ctx     context.Context //nolint:containedctx // stop ends it.
	stop    context.CancelFunc
	inbox   inbox
	notice  chan struct{} // has an element after a notice that announcements were missed

	// Reads of the store by followers.
	logs      shared[logKey, notes.Note]
	replays   shared[replayKey, notes.Change]
	storeEnds shared[struct{}, notes.Sequence]

	delivering sync.Mutex           // held while announcements are taken and delivered, in their order
	spare      []notes.Announcement // empty slice for the inbox; guarded by delivering

	starting    sync.Mutex // guards unsubscribe, and is held while the hub subscribes or unsubscribes
	unsubscribe func()     // nil while the hub is not subscribed

	mu sync.Mutex // guards the rest, and what its followers do not own
	// marks are the last changes that were delivered, by partition; nil while the hub is not subscribed.
	marks []mark
	// gaps counts the times when all followers had to catch up.
	gaps int
	// stale says that the ends of the partitions must be read: announcements may have been missed.
	stale bool
	// stillStale is stale at the last reconciliation, if the store could not be read.
	stillStale bool
	// lag are the ends of partitions that announcements had not reached at the last reconciliation, by partition.
	lag       []notes.Sequence
	lagTime   int64 // of that reconciliation, in nanoseconds since 1970
	complete  int64 // time until which all notes were announced, in nanoseconds since 1970
	pinned    int   // followers, those that are about to register included
	followers [heartbeatSlots]map[*follower]struct{}
	joined    int // followers so far
	places    map[notes.Location]*place
	areas     grid
	batch     wire.Batch
	// cursor and envelope are buffers for those that are written: each follower of a rectangle gets its own.
	cursor, envelope []byte
	now              time.Time // of the delivery in progress
	flushedAt        time.Time // when the batch was flushed
	// foundPlaces and foundAreas are those of the notes that are being delivered.
	foundPlaces []*place
	foundAreas  []*follower
}

// mark identifies an entry of a sequence: a change of a partition by its sequence number, or a note of a log by its position.
type mark struct {
	number uint64
	check  uint32 // hash of the entry; 0 if that is unknown
}

// place is the subscriptions to a location.
type place struct {
	subs  []*subscription
	found []*event // in an announcement of several changes that is being delivered
}

// Counts are numbers since the start, but for Followers.
type Counts struct {
	// Followers is the number of open calls that follow.
	Followers int64
	// Delivered is the number of notes sent to followers, and CaughtUp those of them that were read from the store.
	Delivered, CaughtUp int64
	// Overflows is the number of times that a follower was too slow, and had to catch up.
	Overflows int64
	// Gaps is the number of times that announcements were missed, so that all followers had to catch up.
	Gaps int64
	// Resets is the number of times that a follower could not continue where it was.
	Resets int64
}

type counts struct {
	followers, delivered, caughtUp, overflows, gaps, resets atomic.Int64
}

// NewHub returns a hub. The caller must close it.
func NewHub(options Options) *Hub {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	hub := &Hub{options: options, opened: time.Now(), places: make(map[notes.Location]*place)}
	hub.inbox.ready = make(chan struct{}, 1)
	hub.notice = make(chan struct{}, 1)
	for i := range hub.followers {
		hub.followers[i] = make(map[*follower]struct{})
	}
	hub.ctx, hub.stop = context.WithCancel(context.Background())
	hub.shareReads()
	hub.running.Go(func() { hub.deliverAll(hub.ctx) })
	hub.running.Go(func() { hub.reconcileAll(hub.ctx) })
	return hub
}

// Close ends the hub's goroutines and its subscription. It must be called before the store is closed, and when no call follows.
func (h *Hub) Close() {
	h.stop()
	h.running.Wait()
	h.starting.Lock()
	defer h.starting.Unlock()
	h.end()
}

// Counts returns the hub's counters.
func (h *Hub) Counts() Counts {
	return Counts{
		Followers: h.counts.followers.Load(),
		Delivered: h.counts.delivered.Load(),
		CaughtUp:  h.counts.caughtUp.Load(),
		Overflows: h.counts.overflows.Load(),
		Gaps:      h.counts.gaps.Load(),
		Resets:    h.counts.resets.Load(),
	}
}

// deliverAll delivers announcements and heartbeats until ctx ends.
func (h *Hub) deliverAll(ctx context.Context) {
	seconds := time.NewTicker(time.Second)
	defer seconds.Stop()
	for slot := 0; ; {
		select {
		case <-h.inbox.ready:
			h.announceAll()
		case <-seconds.C:
			slot = (slot + 1) % heartbeatSlots
			h.heartbeat(slot)
		case <-ctx.Done():
			return
		}
	}
}

// reconcileAll reconciles until ctx ends.
func (h *Hub) reconcileAll(ctx context.Context) {
	ticker := time.NewTicker(reconcileInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			h.endIfIdle()
		case <-h.notice:
		case <-ctx.Done():
			return
		}
		h.reconcile(ctx)
	}
}

func (h *Hub) announceAll() {
	h.delivering.Lock()
	defer h.delivering.Unlock()
	h.mu.Lock()
	started := h.marks != nil
	h.mu.Unlock()
	if !started {
		return // start finds them in the inbox.
	}
	announcements := h.inbox.take(h.spare)
	for _, announcement := range announcements {
		h.announce(announcement)
	}
	clear(announcements)
	if h.spare = announcements; cap(h.spare) > maxSpare {
		h.spare = nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flush(time.Now())
}

// flush writes what was delivered. The caller holds h.mu.
func (h *Hub) flush(now time.Time) {
	h.batch.Flush()
	h.flushedAt = now
}

// start subscribes to the store, unless the hub has done so.
func (h *Hub) start(ctx context.Context) error {
	h.starting.Lock()
	defer h.starting.Unlock()
	if h.unsubscribe == nil {
		h.unsubscribe = h.options.Store.Subscribe(h.inbox.put)
	}
	h.mu.Lock()
	started := h.marks != nil
	h.mu.Unlock()
	if started {
		return nil
	}
	began := notes.Now()
	marks, err := h.readMarks(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.marks, h.lag, h.complete = marks, nil, began
	h.mu.Unlock()
	h.inbox.wake() // For what was announced meanwhile.
	return nil
}

// readMarks returns the last change of each partition.
func (h *Hub) readMarks(ctx context.Context) ([]mark, error) {
	ends, err := h.options.Store.Ends(ctx)
	if err != nil {
		return nil, err
	}
	marks := make([]mark, len(ends))
	for partition, end := range ends {
		if marks[partition], err = h.readMark(ctx, partition, end); err != nil {
			return nil, err
		}
	}
	return marks, nil
}

// readMark returns the change with a number. If it cannot be read any more, it has no check.
func (h *Hub) readMark(ctx context.Context, partition int, end notes.Sequence) (mark, error) {
	if end == 0 {
		return mark{}, nil
	}
	for changes, err := range h.options.Store.Changes(ctx, partition, end) {
		if errors.Is(err, notes.ErrOutOfRange) {
			break
		}
		if err != nil {
			return mark{}, err
		}
		return markOfChange(&changes[0]), nil
	}
	return mark{number: uint64(end)}, nil
}

// endIfIdle ends the subscription if nobody follows.
func (h *Hub) endIfIdle() {
	h.starting.Lock()
	defer h.starting.Unlock()
	h.mu.Lock()
	idle := h.pinned == 0
	h.mu.Unlock()
	if idle {
		h.end()
	}
}

// end ends the subscription. The caller holds h.starting.
func (h *Hub) end() {
	if h.unsubscribe == nil {
		return
	}
	h.unsubscribe()
	h.unsubscribe = nil
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marks = nil
	h.inbox.take(nil)
}

// reconcile finds the changes that were not announced: those that were kept before the last reconciliation, or before a
// notice that some were missed.
func (h *Hub) reconcile(ctx context.Context) {
	h.mu.Lock()
	started, stale := h.marks != nil, h.stale || h.stillStale
	h.stale, h.stillStale = false, false
	before := slices.Clone(h.marks)
	h.mu.Unlock()
	if !started {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	began := notes.Now()
	ends, err := h.options.Store.Ends(ctx)
	if err != nil {
		h.options.Logger.WarnContext(ctx, "followers may hear of notes late: the store cannot be read (will retry)", "err", err)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.stillStale = stale
		return // The next reconciliation comes soon.
	}
	h.announceAll() // What has come already is not missed.
	h.mu.Lock()
	var missed []int // partitions
	for partition, end := range ends {
		if partition >= len(h.marks) {
			break // The hub was stopped meanwhile.
		}
		reached := notes.Sequence(h.marks[partition].number)
		behind := h.lag != nil && reached < h.lag[partition] || notes.Sequence(before[partition].number) > end
		if stale || behind {
			// After a notice, the numbers may have been assigned again, also those that were reached.
			missed = append(missed, partition)
		}
	}
	if len(missed) == 0 && h.lag != nil {
		h.complete = h.lagTime
	}
	h.lag, h.lagTime = ends, began
	h.mu.Unlock()
	if len(missed) == 0 && !stale {
		return
	}
	found := make(map[int]mark, len(missed))
	for _, partition := range missed {
		if found[partition], err = h.readMark(ctx, partition, ends[partition]); err != nil {
			found[partition] = mark{number: uint64(ends[partition])}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.marks == nil {
		return
	}
	h.leaveBehind()
	for partition, mark := range found {
		if h.marks[partition] == before[partition] || h.marks[partition].number < mark.number { // Else more was delivered meanwhile.
			h.marks[partition] = mark
		}
	}
	h.options.Logger.InfoContext(ctx, "announcements of notes were missed: followers read them from the store", "partitions", len(missed))
}

// leaveBehind makes all followers catch up from where they are. The caller holds h.mu, and changes the marks afterwards.
func (h *Hub) leaveBehind() {
	h.gaps++
	h.counts.gaps.Add(1)
	for _, followers := range h.followers {
		for follower := range followers {
			follower.leaveBehind()
		}
	}
}

// announce delivers an announcement.
func (h *Hub) announce(announcement notes.Announcement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	partition, changes := announcement.Partition, announcement.Changes
	if partition >= len(h.marks) {
		return // Nobody follows.
	}
	if announcement.Missed {
		h.stale = true
		select {
		case h.notice <- struct{}{}:
		default:
		}
	}
	reached := notes.Sequence(h.marks[partition].number)
	for len(changes) > 0 && changes[0].Sequence <= reached {
		changes = changes[1:]
	}
	if len(changes) == 0 {
		return
	}
	last := markOfChange(&changes[len(changes)-1])
	if changes[0].Sequence != reached+1 || slices.ContainsFunc(changes, isForgotten) {
		h.leaveBehind() // They find these changes in the store.
		h.overtake(changes)
		h.marks[partition] = last
		return
	}
	h.now = time.Now()
	before := h.marks[partition]
	h.marks[partition] = last
	h.deliver(partition, before, changes)
	if h.now.Sub(h.flushedAt) >= flushInterval {
		h.flush(h.now)
	}
}

// isForgotten returns whether a note was forgotten before it was announced.
func isForgotten(change notes.Change) bool { return len(change.Note.Encoded) == 0 }

// overtake notes which followers of locations miss notes that were forgotten before they were announced. Those of rectangles find out when
// they catch up. The caller holds h.mu.
func (h *Hub) overtake(changes []notes.Change) {
	for i := range changes {
		here := h.places[changes[i].Location]
		if here == nil || !isForgotten(changes[i]) {
			continue
		}
		for _, sub := range here.subs {
			if sub.state != waiting && sub.at.number < uint64(changes[i].Note.Position) {
				sub.overtaken = true
			}
		}
	}
}

// deliver delivers consecutive changes of a partition. The caller holds h.mu.
func (h *Hub) deliver(partition int, before mark, changes []notes.Change) {
	if len(changes) == 1 {
		h.deliverOne(partition, before, &changes[0])
		return
	}
	for i := range changes {
		h.find(&changes[i])
	}
	for _, here := range h.foundPlaces {
		here.deliver(eventsOf(here.found))
		here.found = nil
	}
	for _, follower := range h.foundAreas {
		follower.deliverArea(follower.area.found, partition, before)
		follower.area.found = nil
	}
	clear(h.foundPlaces)
	clear(h.foundAreas)
	h.foundPlaces, h.foundAreas = h.foundPlaces[:0], h.foundAreas[:0]
}

// deliverOne delivers one change, as it is found. The caller holds h.mu.
func (h *Hub) deliverOne(partition int, before mark, change *notes.Change) {
	var found *event
	if here := h.places[change.Location]; here != nil {
		found = newEvent(change)
		here.deliver(&found.alone)
	}
	h.areas.find(change.Location, func(follower *follower) {
		if found == nil {
			found = newEvent(change)
		}
		follower.deliverArea(found.list[:], partition, before)
	})
}

// find adds a change to the place and the areas in which it is. The caller holds h.mu.
func (h *Hub) find(change *notes.Change) {
	var found *event
	if here := h.places[change.Location]; here != nil {
		found = newEvent(change)
		if here.found == nil {
			h.foundPlaces = append(h.foundPlaces, here)
		}
		here.found = append(here.found, found)
	}
	h.areas.find(change.Location, func(follower *follower) {
		if found == nil {
			found = newEvent(change)
		}
		if follower.area.found == nil {
			h.foundAreas = append(h.foundAreas, follower)
		}
		follower.area.found = append(follower.area.found, found)
	})
}
