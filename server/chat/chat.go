// Package chat is RouteChat: it takes in notes, has them kept, and replies with the logs of their
// locations. It knows the messages of the contract and the store of notes, and nothing of RPC
// protocols or of connections.
package chat

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/validate"
)

// MaxPending is how many notes of one chat may wait for their replies. A client that has written
// so many without reading is not read from until it does.
const MaxPending = 1 << 18

// A Stream is a chat as the RPC sees it. Receive and Send are each called by one goroutine at a
// time, but both at once.
type Stream interface {
	// Receive returns the client's next note. Its error is io.EOF after the last one.
	Receive() (*routeguide.RouteNote, error)
	// Send sends a note to the client.
	Send(note *routeguide.RouteNote) error
	// StopReceiving makes Receive return an error, at once if it blocks, after what has arrived
	// already.
	StopReceiving()
}

// Serve holds one chat and returns when it is over: with nil if the client has closed its side and
// has all its replies. Otherwise with the reason: the error of a note that breaks a rule, of the
// store, or of the stream. Notes before the one that the error is about are kept, and their
// replies sent, as long as the stream takes them.
//
// The two directions are independent. The calling goroutine receives and appends; a second one
// exists only while there are replies that the store has settled, and sends them in order.
func Serve(ctx context.Context, store notes.Store, stream Stream) error {
	chat := &chat{ctx: ctx, store: store, stream: stream}
	chat.changed.L = &chat.mu
	err := chat.receive()
	if failure := chat.finish(); failure != nil {
		return failure
	}
	return err
}

type chat struct {
	ctx    context.Context //nolint:containedctx // A chat is one call, and this is that call's.
	store  notes.Store
	stream Stream

	mu      sync.Mutex // guards the rest
	changed sync.Cond  // is signalled when pending shrinks, sending ends, or failure is set
	pending pending
	sending bool // a goroutine is in send
	// failure is why no further reply will be sent. It is set once.
	failure error
	// lost is the error of the first note that the store did not keep, lostNumber its number.
	// Replies before that one are still sent.
	lost       error
	lostNumber uint64
}

// receive takes in notes until the client closes its side, which is no error, or until it cannot
// go on.
func (c *chat) receive() error {
	for {
		note, err := c.stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := validate.Note(note); err != nil {
			return err
		}
		encoded, err := proto.Marshal(note)
		if err != nil {
			return err
		}
		at := notes.Location{
			Latitude:  note.GetLocation().GetLatitude(),
			Longitude: note.GetLocation().GetLongitude(),
		}
		number, err := c.expect(at)
		if err != nil {
			return err
		}
		c.store.Append(c.ctx, at, encoded, notes.Ticket{Owner: c, Number: number})
	}
}

// expect makes room for a reply and returns its number. It waits while too many are pending.
func (c *chat) expect(at notes.Location) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitWhile(func() bool {
		return c.pending.count >= MaxPending && c.failure == nil && c.lost == nil
	})
	if err := errors.Join(c.failure, c.lost); err != nil {
		return 0, err
	}
	return c.pending.push(at), nil
}

// Settle takes note of what the store says of a note. It implements [notes.Owner].
func (c *chat) Settle(number uint64, position notes.Position, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.failure != nil:
		return
	case c.lost != nil && number > c.lostNumber:
		return // The chat ends before that reply.
	case err != nil:
		c.lost, c.lostNumber = err, number
	default:
		c.pending.reply(number).upto = position
	}
	if c.sending || number != c.pending.first {
		return
	}
	if err != nil {
		c.fail(err)
		return
	}
	c.sending = true
	go c.send()
}

// send sends the replies that are settled, and returns when there is none. The chat's finish joins
// it.
func (c *chat) send() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.failure == nil {
		oldest, settled := c.pending.oldest()
		if !settled {
			break
		}
		c.mu.Unlock()
		err := c.reply(oldest)
		c.mu.Lock()
		if err != nil {
			c.fail(err)
			break
		}
		c.pending.pop()
		if c.pending.count == 0 || c.pending.count == MaxPending-1 {
			c.changed.Broadcast()
		}
		if c.lost != nil && c.lostNumber == c.pending.first {
			c.fail(c.lost)
		}
	}
	c.sending = false
	c.changed.Broadcast()
}

// reply sends the notes of one reply.
func (c *chat) reply(reply reply) error {
	for chunk, err := range c.store.Range(c.ctx, reply.at, 0, reply.upto) {
		if err != nil {
			return err
		}
		for _, kept := range chunk {
			note := &routeguide.RouteNote{}
			if err := proto.Unmarshal(kept.Encoded, note); err != nil {
				return err
			}
			if err := c.stream.Send(note); err != nil {
				return err
			}
		}
	}
	return nil
}

// fail ends the chat with err: nothing more is sent. The caller holds c.mu.
func (c *chat) fail(err error) {
	c.failure = err
	c.changed.Broadcast()
	// The client may wait for a reply that will never come, and so may this end's Receive.
	c.stream.StopReceiving()
}

// finish waits until every pending reply is sent and no goroutine sends. It returns the reason if
// some will never be sent.
func (c *chat) finish() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitWhile(func() bool {
		return c.pending.count > 0 && c.failure == nil
	})
	for c.sending {
		c.changed.Wait()
	}
	return c.failure
}

// waitWhile waits as long as condition holds, which it looks at whenever something has changed. If
// the call ends before that, the chat fails. The caller holds c.mu, and condition must include that
// the chat has not failed.
func (c *chat) waitWhile(condition func() bool) {
	if !condition() {
		return
	}
	over := false
	stop := context.AfterFunc(c.ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !over && c.failure == nil {
			c.fail(context.Cause(c.ctx))
		}
	})
	for condition() {
		c.changed.Wait()
	}
	over = true
	stop()
}
