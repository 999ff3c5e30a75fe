package live

import (
	"context"
	"slices"
	"time"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

const (
	// maxQueued and maxQueuedBytes bound the notes that wait for the goroutine of a follower, in deliveries and in bytes.
	maxQueued      = 64
	maxQueuedBytes = 64 << 10
	// cursorInterval is the shortest time between two cursors, other than those of heartbeats.
	cursorInterval = time.Second
)

// follower is one call that follows, and its bounded queue. Its owner is the goroutine of the call, or the one that sends for it. While the
// owner is idle, the hub writes to the stream itself; else it queues. If the queue overflows, the follower catches up from the store.
type follower struct {
	// The hub looks at these fields whenever it delivers, and finds most followers in no cache: they fill one line of it.
	output wire.Queue // nil if only the owner can write
	area   *area      // of FollowNotes of a rectangle; its fields are the hub's
	// ahead are the last changes sent of an area that is live, and that has read further than the hub; nil once the hub has come there.
	// The hub's lock guards it, and the rest of this group.
	ahead    []mark
	cursorAt time.Duration // when the last cursor was sent, since the hub was opened
	idle     bool          // the owner has nothing to do
	isChat   bool          // its messages are RouteNotes, and not FollowNotesResponses; never changed

	hub    *Hub
	sub    *subscription // of FollowNotes of a location
	filter uint64        // hash of the filter in cursors
	// lineage is the hash of the lineage of the store whose notes were sent; 0 until it is known. The owner sets it, with the hub's lock.
	lineage uint64
	// wake wakes up an owner that is idle. The hub calls it with h.mu.
	wake func()
	// The owner sends with these.
	sendNotes  func(location notes.Location, list []notes.Note) error
	sendEvents func(events *events) error
	sendCursor func(cursor []byte, current bool) error
	flush      func() error

	// The hub's lock guards the rest.
	queue       []delivery
	queuedBytes int
	behind      []*subscription                  // those that must catch up, less the one that does
	delivered   int64                            // notes of a chat that the hub has sent
	subs        map[notes.Location]*subscription // of a chat
	slot        int                              // of heartbeats
	currentDue  bool                             // "current" is to be sent
	cursorDue   bool                             // a cursor is to be sent
	unmarked    bool                             // notes of an area were sent by the owner since the last cursor
}

// delivery is an element of a follower's queue.
type delivery struct {
	events    *events
	sub       *subscription // nil for an area
	partition int           // for an area
	before    mark          // what was before
}

// join registers a follower. The hub must be pinned and started.
func (h *Hub) join(f *follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.hub = h
	if f.lineage == 0 {
		f.lineage = h.lineage()
	}
	f.slot = h.joined % heartbeatSlots
	h.joined++
	h.followers[f.slot][f] = struct{}{}
	h.counts.followers.Add(1)
	if f.sub != nil {
		h.add(f.sub)
	}
	if f.area != nil {
		h.areas.add(f)
	}
}

// leave is the inverse of join.
func (h *Hub) leave(f *follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.followers[f.slot], f)
	h.counts.followers.Add(-1)
	if f.sub != nil {
		h.remove(f.sub)
	}
	for _, sub := range f.subs {
		h.remove(sub)
	}
	if f.area != nil {
		h.areas.remove(f)
	}
	f.queue, f.behind = nil, nil
}

// pin keeps the hub subscribed until unpin.
func (h *Hub) pin(ctx context.Context) error {
	h.mu.Lock()
	h.pinned++
	h.mu.Unlock()
	err := h.start(ctx)
	if err != nil {
		h.unpin()
	}
	return err
}

func (h *Hub) unpin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pinned--
}

// deliver writes notes to the stream, if the owner is idle, and else queues them. The caller holds h.mu.
func (f *follower) deliver(d delivery) {
	if f.idle && f.hub.batch.TryWrite(f.output, f.encode(d)) {
		if f.isChat {
			f.delivered += int64(len(d.events.list))
		}
		f.hub.counts.delivered.Add(int64(len(d.events.list)))
		return
	}
	size := d.events.bytes()
	if len(f.queue) == maxQueued || len(f.queue) > 0 && f.queuedBytes+size > maxQueuedBytes {
		f.overflow(d)
	} else {
		switch {
		case f.area != nil:
			d.events.encode()
		case !f.isChat:
			f.mark(d.events)
		}
		f.queue = append(f.queue, d)
		f.queuedBytes += size
	}
	f.wakeUp()
}

// overflow drops the queue, and the delivery that does not fit: the follower catches up. The caller holds h.mu.
func (f *follower) overflow(d delivery) {
	f.hub.counts.overflows.Add(1)
	if f.area != nil {
		f.area.marks = slices.Clone(f.reached())
	}
	for _, queued := range slices.Backward(append(f.queue, d)) {
		if queued.sub == nil {
			f.area.marks[queued.partition] = queued.before
		} else {
			queued.sub.at = queued.before
			queued.sub.fallBehind()
			queued.sub.since = min(queued.sub.since, queued.events.list[0].Note.Time)
		}
	}
	f.queue, f.queuedBytes = nil, 0
}

// leaveBehind makes the follower catch up. The caller holds h.mu.
func (f *follower) leaveBehind() {
	if f.sub != nil {
		f.sub.leaveBehind()
	}
	for _, sub := range f.subs {
		sub.leaveBehind()
	}
	if f.area != nil && f.area.marks == nil {
		f.area.marks = slices.Clone(f.reached())
	}
	f.wakeUp()
}

// wakeUp wakes the owner up, because there is something to do. The caller holds h.mu.
func (f *follower) wakeUp() {
	if f.idle {
		f.idle = false
		f.wake()
	}
}

// encode returns the envelopes of a delivery, until the next call. The caller holds h.mu.
func (f *follower) encode(d delivery) []byte {
	switch {
	case f.isChat:
		return d.events.chatEnvelopes()
	case d.sub != nil:
		f.cursorAt = f.hub.now.Sub(f.hub.opened)
		f.mark(d.events)
		return d.events.marked
	case f.hub.now.Sub(f.hub.opened)-f.cursorAt < cursorInterval:
		return d.events.envelope()
	default:
		f.cursorAt = f.hub.now.Sub(f.hub.opened)
		return f.envelopeWithCursor(d.events.message(), f.reached())
	}
}

// mark encodes notes of a location with a cursor: each response has one, so that no note comes twice. All followers of the location share
// it. The caller holds h.mu.
func (f *follower) mark(events *events) {
	if events.marked == nil {
		events.marked = slices.Clone(f.envelopeWithCursor(events.message(), []mark{events.mark()}))
	}
}

// envelopeWithCursor returns the envelope of a FollowNotesResponse: that of a message, which may be empty, with a cursor. It is valid until
// the next call. The caller holds h.mu.
func (f *follower) envelopeWithCursor(message []byte, marks []mark) []byte {
	h := f.hub
	h.cursor = (&cursor{time: h.now.Unix(), marks: marks}).append(h.cursor[:0], f.lineage, f.filter)
	var array [512]byte
	message = appendBytes(append(array[:0], message...), responseCursor, h.cursor)
	h.envelope = wire.AppendEnvelope(h.envelope[:0], message)
	return h.envelope
}

// marks returns the marks for the cursor of a follower that is live and has queued nothing. They must not be changed. The caller holds h.mu.
func (f *follower) marks() []mark {
	switch {
	case f.sub != nil:
		return []mark{f.sub.at}
	case f.area.last != nil:
		return f.area.last
	default:
		return f.reached()
	}
}

// encodeCursor returns a cursor, for the present time if it has none.
func (f *follower) encodeCursor(c *cursor) []byte {
	if c.time == 0 {
		c.time = time.Now().Unix()
	}
	return c.append(nil, f.lineage, f.filter)
}

// lineage returns the hash of the store's lineage.
func (h *Hub) lineage() uint64 { return hashOf(h.options.Store.Lineage()) }

// heartbeat sends cursors to the followers of a slot.
func (h *Hub) heartbeat(slot int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = time.Now()
	for f := range h.followers[slot] {
		if f.isChat {
			continue
		}
		if f.idle && h.batch.TryWrite(f.output, f.envelopeWithCursor(nil, f.marks())) {
			f.cursorAt = h.now.Sub(h.opened)
			continue
		}
		f.cursorDue = true
		f.wakeUp()
	}
	h.flush(h.now)
}
