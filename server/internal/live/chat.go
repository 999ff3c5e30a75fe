package live

import (
	"context"
	"errors"
	"fmt"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

// MaxChatLocations is the largest number of locations that a chat follows.
const MaxChatLocations = 1000

// ErrTooManyFollowed is the error of a chat that would follow further locations.
var ErrTooManyFollowed = fmt.Errorf("a chat that follows can leave notes at %d locations (open another one)", MaxChatLocations)

// ChatOptions say how the notes of a chat are sent. Only Output may be nil.
type ChatOptions struct {
	// Output is the queue of the response, if envelopes of RouteNotes may be written to it.
	Output wire.Queue
	// Send sends notes, and may buffer them until Flush. Both are called by Work.
	Send  func(list []notes.Note) error
	Flush func() error
	// Wake is called when Work is to be called. It must not block, nor call the hub.
	Wake func()
}

// A Chat is a RouteChat that follows the locations of its own notes. Add is called by one goroutine, and all other methods by one at a
// time.
type Chat struct {
	follower follower
	added    map[notes.Location]struct{} // owned by Add
}

// OpenChat registers a chat. The caller must close it.
func (h *Hub) OpenChat(ctx context.Context, options ChatOptions) (*Chat, error) {
	if err := h.pin(ctx); err != nil {
		return nil, err
	}
	chat := &Chat{added: make(map[notes.Location]struct{})}
	chat.follower = follower{
		output: options.Output,
		isChat: true,
		wake:   options.Wake,
		subs:   make(map[notes.Location]*subscription),
		flush:  options.Flush,
		sendNotes: func(_ notes.Location, list []notes.Note) error {
			return options.Send(list)
		},
		sendEvents: func(events *events) error {
			var err error
			for i := 0; i < len(events.list) && err == nil; i++ {
				err = options.Send([]notes.Note{events.list[i].Note})
			}
			return err
		},
		sendCursor: func([]byte, bool) error { return errors.ErrUnsupported }, // A chat has no cursor.
	}
	h.join(&chat.follower)
	chat.follower.rest()
	return chat, nil
}

// Close ends the following. Wake is not called afterwards.
func (c *Chat) Close() {
	h := c.follower.hub
	h.leave(&c.follower)
	h.unpin()
}

// Add follows a location from the first reply on. It returns [ErrTooManyFollowed] if that is one too many.
func (c *Chat) Add(location notes.Location) error {
	if _, ok := c.added[location]; ok {
		return nil
	}
	if len(c.added) == MaxChatLocations {
		return ErrTooManyFollowed
	}
	c.added[location] = struct{}{}
	h := c.follower.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	sub := &subscription{follower: &c.follower, location: location}
	c.follower.subs[location] = sub
	h.add(sub)
	return nil
}

// Follows returns whether the chat follows any location. It is called by the goroutine of Add.
func (c *Chat) Follows() bool { return len(c.added) > 0 }

// Reply is called when the store has kept a note of the chat at a location that was added: Work sends the log up to that note, less what was
// sent. Of the first reply it sends the newest notes only, if newest is not 0.
func (c *Chat) Reply(location notes.Location, through notes.Position, newest int) {
	f := &c.follower
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	sub := f.subs[location]
	switch {
	case sub.state == waiting:
		sub.state, sub.since = behind, notes.Now()
		sub.first = &notes.Span{Through: through, Newest: newest}
		f.behind = append(f.behind, sub)
	case sub.at.number < uint64(through):
		sub.fallBehind()
	}
}

// CatchUp makes Work send all that was kept so far.
func (c *Chat) CatchUp() {
	c.follower.hub.mu.Lock()
	defer c.follower.hub.mu.Unlock()
	for _, sub := range c.follower.subs {
		sub.missed = true // It may catch up already, and have read the log before the last note was kept.
		sub.fallBehind()
	}
}

// Work sends what is due. It returns when there is nothing left, or with an error: of the store or of Send, or [ErrOvertaken].
func (c *Chat) Work(ctx context.Context) error {
	return c.follower.work(ctx)
}

// Delivered returns the number of notes that were sent other than by Send.
func (c *Chat) Delivered() int64 {
	c.follower.hub.mu.Lock()
	defer c.follower.hub.mu.Unlock()
	return c.follower.delivered
}

// rest makes the owner idle.
func (f *follower) rest() {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	f.idle = true
}
