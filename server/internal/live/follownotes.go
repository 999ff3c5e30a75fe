package live

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
	"example.com/routeguide/server/wire"
)

// messageBytes is the size of a response of a snapshot, in bytes, from which on the next one begins.
const messageBytes = 16 << 10

// ErrTooManyLocations says that the snapshot of a rectangle is too large.
var ErrTooManyLocations = errors.New("too many locations with notes are in the rectangle (ask for a smaller one, or for newest 0)")

// A Request is a call of FollowNotes.
type Request struct {
	Filter Filter
	// Newest is the number of notes of each location to begin with.
	Newest int
	// Cursor is where an earlier call has come to; empty for none.
	Cursor []byte
}

// A Stream is the response of a call of FollowNotes. Its methods are called by one goroutine.
type Stream interface {
	// Start sends the response headers.
	Start() error
	// Send sends an encoded FollowNotesResponse. It may buffer it until Flush.
	Send(encoded []byte) error
	// Flush sends what Send has buffered.
	Flush() error
	// Queue returns the queue of the response if envelopes of FollowNotesResponses may be written to it, and else nil.
	Queue() wire.Queue
}

// FollowNotes serves a call of FollowNotes until its context ends, and returns the cause of that, or the error of the store or of the
// stream; a [validate.Error] if the cursor is not one of this filter, and [ErrTooManyLocations].
func (h *Hub) FollowNotes(ctx context.Context, request Request, stream Stream) error {
	var resume cursor
	var err error
	lineage := h.lineage()
	if len(request.Cursor) > 0 {
		resume, err = parseCursor(request.Cursor, lineage, request.Filter.hash())
	}
	isReset := errors.Is(err, errOtherStore)
	if err != nil && !isReset {
		return &validate.Error{Field: "cursor", Rule: err.Error()}
	}
	if err := h.pin(ctx); err != nil {
		return err
	}
	defer h.unpin()
	call := newCall(h, request, stream)
	if len(request.Cursor) > 0 && !isReset {
		call.lineage = lineage
	}
	h.join(&call.follower)
	defer h.leave(&call.follower)
	if err := stream.Start(); err != nil {
		return err
	}
	if len(request.Cursor) > 0 && !isReset {
		resumed, err := call.resume(ctx, resume)
		if err != nil {
			return err
		}
		isReset = !resumed
	}
	for {
		if isReset {
			if err := call.reset(); err != nil {
				return err
			}
		}
		err := call.serve(ctx)
		if isReset = errors.Is(err, ErrOvertaken); !isReset {
			return err
		}
	}
}

// call is a call of FollowNotes.
type call struct {
	follower

	request  Request
	messages Stream
	woken    chan struct{} // has an element if there is work
	// begun is set once there is something to go on from; after is the location after which the snapshot of a rectangle continues.
	begun bool
	after *notes.Location
	marks []mark // changes that the snapshot of a rectangle has, at least
}

func newCall(hub *Hub, request Request, stream Stream) *call {
	call := &call{request: request, messages: stream, woken: make(chan struct{}, 1)}
	call.follower = follower{
		hub:        hub,
		output:     stream.Queue(),
		filter:     request.Filter.hash(),
		wake:       call.wakeUp,
		sendNotes:  call.sendNotes,
		sendEvents: call.sendEvents,
		sendCursor: call.sendCursor,
		flush:      stream.Flush,
	}
	if request.Filter.Location != nil {
		call.sub = &subscription{follower: &call.follower, location: *request.Filter.Location}
	} else {
		call.area = &area{rectangle: request.Filter.Rectangle, marks: []mark{}}
	}
	return call
}

func (c *call) wakeUp() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// resume goes on at a cursor. It returns false if it cannot.
func (c *call) resume(ctx context.Context, at cursor) (bool, error) {
	h := c.hub
	var ends []mark
	if c.area != nil {
		// Announcements of what was kept before the call may be under way, and "current" is said once all that was sent.
		var err error
		if ends, err = h.ends(ctx); err != nil {
			return false, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case c.sub != nil && len(at.marks) == 1:
		c.begin(at.marks[0], at.time*int64(time.Second))
	case c.area != nil && len(at.marks) == len(ends):
		c.area.marks, c.area.least, c.marks, c.after = at.marks, ends, at.marks, at.snapshot
		c.begun = at.snapshot == nil
		c.currentDue = c.begun
	default:
		return false, nil
	}
	return true, nil
}

// ends returns the last changes of all partitions, with checks where the hub has come to them.
func (h *Hub) ends(ctx context.Context) ([]mark, error) {
	read := h.storeEnds.first(ctx, struct{}{})
	if read.err != nil {
		return nil, read.err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	ends := make([]mark, len(read.items))
	for partition, number := range read.items {
		if ends[partition].number = uint64(number); ends[partition].number == h.marks[partition].number {
			ends[partition] = h.marks[partition]
		}
	}
	return ends, nil
}

// begin makes the subscription catch up. The caller holds h.mu.
func (c *call) begin(at mark, since int64) {
	c.sub.at, c.sub.since, c.sub.state = at, since, behind
	c.behind = append(c.behind[:0], c.sub)
	c.begun, c.currentDue = true, true
}

// reset tells the client that notes may be missing, and starts again.
func (c *call) reset() error {
	h := c.hub
	h.counts.resets.Add(1)
	h.mu.Lock()
	c.lineage = h.lineage()
	c.begun, c.after, c.marks, c.queue, c.queuedBytes, c.behind = false, nil, nil, nil, 0, nil
	if c.sub != nil {
		c.sub.state, c.sub.overtaken = waiting, false
	}
	if c.area != nil {
		c.area.marks = []mark{} // It is not live.
	}
	h.mu.Unlock()
	return c.sendMessage(&routeguidev1.FollowNotesResponse{Reset_: true})
}

// serve sends the snapshot, unless there is something to go on from, and then what comes.
func (c *call) serve(ctx context.Context) error {
	if err := c.start(ctx); err != nil {
		return err
	}
	for {
		if err := c.work(ctx); err != nil {
			return c.ended(ctx, err)
		}
		select {
		case <-c.woken:
		case <-ctx.Done():
			return c.ended(ctx, context.Cause(ctx))
		}
	}
}

func (c *call) start(ctx context.Context) (err error) {
	switch {
	case c.begun:
		return nil
	case c.sub != nil:
		return c.startLocation(ctx)
	default:
		return c.startArea(ctx)
	}
}

// ended returns the error of a call that has ended with err. When the server drains, what was kept so far is sent first.
func (c *call) ended(ctx context.Context, err error) error {
	h := c.hub
	if h.options.Draining == nil || !errors.Is(context.Cause(ctx), h.options.Draining) {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	var ends []mark
	if c.area != nil {
		var failed error
		if ends, failed = h.ends(ctx); failed != nil {
			return h.options.Draining // The client goes on elsewhere.
		}
	}
	h.mu.Lock()
	c.leaveBehind()
	if c.area != nil {
		c.area.least, c.area.final = ends, true
	}
	c.cursorDue = c.begun
	h.mu.Unlock()
	if c.begun {
		_ = c.work(ctx) // The client reads on from its last cursor.
	}
	return h.options.Draining
}

// startLocation sends the newest notes of the location.
func (c *call) startLocation(ctx context.Context) error {
	since, at := notes.Now(), mark{}
	c.sub.since = since // It is waiting: the hub does not use it.
	span := notes.Span{Through: notes.Everything.Through, Newest: max(c.request.Newest, 1)}
	for chunk, err := range c.hub.options.Store.Range(ctx, c.sub.location, span) {
		if err != nil {
			return err
		}
		if c.request.Newest > 0 {
			if err := c.sendNotes(c.sub.location, chunk); err != nil {
				return err
			}
			c.hub.counts.delivered.Add(int64(len(chunk)))
		}
		at = markOfNote(&chunk[len(chunk)-1])
	}
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.begin(at, since)
	return nil
}

// startArea sends the newest notes of each location in the rectangle.
func (c *call) startArea(ctx context.Context) error {
	h := c.hub
	if c.marks == nil {
		var err error
		if c.marks, err = h.ends(ctx); err != nil {
			return err
		}
	}
	var locations []notes.Location
	if c.request.Newest > 0 {
		var err error
		if locations, err = c.locations(ctx); err != nil {
			return err
		}
	}
	message := &message{call: c}
	for i := range locations {
		span := notes.Span{Through: notes.Everything.Through, Newest: c.request.Newest}
		for chunk, err := range h.options.Store.Range(ctx, locations[i], span) {
			if err != nil {
				return err
			}
			if err := message.add(locations[i], chunk); err != nil {
				return err
			}
			h.counts.delivered.Add(int64(len(chunk)))
		}
		if err := message.sendCursor(&cursor{marks: c.marks, snapshot: &locations[i]}); err != nil {
			return err
		}
	}
	if err := message.send(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	c.area.marks, c.begun, c.currentDue = c.marks, true, true
	return nil
}

// locations returns the locations whose notes are in the snapshot.
func (c *call) locations(ctx context.Context) (locations []notes.Location, err error) {
	limit := c.hub.options.MaxLocations
	for location, err := range c.hub.options.Store.Locations(ctx, c.area.rectangle, c.after) {
		if err != nil {
			return nil, err
		}
		if limit > 0 && len(locations) == limit {
			return nil, fmt.Errorf("%w: more than %d", ErrTooManyLocations, limit)
		}
		locations = append(locations, location)
	}
	return locations, nil
}

// message collects notes of a few locations.
type message struct {
	call    *call
	encoded []byte
	last    *notes.Note
}

func (m *message) add(location notes.Location, list []notes.Note) error {
	for i := range list {
		m.encoded = appendNote(m.encoded, location, &list[i])
		m.last = &list[i]
		if len(m.encoded) >= messageBytes {
			if err := m.send(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *message) send() error {
	if len(m.encoded) == 0 {
		return nil
	}
	if sub := m.call.sub; sub != nil {
		// Notes after it may be as old as the time at which the owner began to read.
		at := cursor{time: sub.since / int64(time.Second), marks: []mark{markOfNote(m.last)}}
		m.encoded = appendBytes(m.encoded, responseCursor, m.call.encodeCursor(&at))
	}
	err := m.call.messages.Send(m.encoded)
	m.encoded = m.encoded[:0]
	return err
}

// sendCursor sends what there is, with a cursor, unless the last one was sent just now.
func (m *message) sendCursor(at *cursor) error {
	c := m.call
	if c.sinceCursor() < cursorInterval {
		return nil
	}
	if err := m.send(); err != nil {
		return err
	}
	return c.sendCursorOf(at)
}

func (c *call) sendNotes(location notes.Location, list []notes.Note) error {
	message := message{call: c}
	if err := message.add(location, list); err != nil {
		return err
	}
	return message.send()
}

func (c *call) sendEvents(events *events) error {
	if c.sub != nil {
		return c.messages.Send(wire.MessageOf(events.marked))
	}
	return c.messages.Send(events.message())
}

func (c *call) sendCursor(cursor []byte, current bool) error {
	return c.sendMessage(&routeguidev1.FollowNotesResponse{Cursor: cursor, Current: current})
}

func (c *call) sendMessage(message *routeguidev1.FollowNotesResponse) error {
	encoded, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	return c.messages.Send(encoded)
}
