// Package chat is RouteChat: it takes in notes, has them kept, and replies with the logs of their
// locations. It knows the messages of the contract and the store of notes, and nothing of RPC
// protocols or of connections.
package chat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
)

// A Stream is a chat as the RPC sees it. Receive is called by one goroutine at a time, and so are Send
// and Flush, but both at once.
type Stream interface {
	// Receive returns the client's next note, encoded. It is valid until the next call. The error is
	// io.EOF after the last one.
	Receive() ([]byte, error)
	// Send sends an encoded note to the client. It may hold it back until Flush.
	Send(encoded []byte) error
	// Flush sends what Send has held back.
	Flush() error
	// StopReceiving makes Receive return an error, at once if it blocks, after what has arrived
	// already.
	StopReceiving()
	// Reset ends the stream at once, both ways. A Send or a Flush that blocks returns an error.
	Reset()
}

// ErrForgotten says that a note was forgotten while its reply waited for the client to take the
// replies before.
var ErrForgotten = errors.New("the note was forgotten before it could be answered")

// The errors of a chat that say nothing of a note or of the store.
var (
	// ErrTooManyPending says that too many notes wait for replies in all, and that most of them are of
	// this chat.
	ErrTooManyPending = errors.New("too many notes wait for their replies: read them while you write")
	// ErrStalled says that the client did not take its replies.
	ErrStalled = errors.New("the client did not take its replies in time")
)

// ErrMalformed says that what a client has sent is no RouteNote.
var ErrMalformed = errors.New("unmarshal message: it is no RouteNote")

type chat struct {
	ctx    context.Context //nolint:containedctx // A chat is one call, and this is that call's.
	host   *Server
	stream Stream
	pace   *rate.Limiter

	in int64 // how many notes were appended; it is the receiver's

	// What follows is the sender's. sendChunk is its sendNotes, made a function once: for each reply
	// that would be an allocation.
	sendChunk func([]notes.Note, error) bool
	replied   notes.Position // the last note that was sent
	replyErr  error          // what ended the reply
	out       int64          // how many notes were sent
	untold    int            // how many bytes were sent since progress was counted

	// taking says that the stream has something that it may not be able to get rid of, and progress
	// counts how often it could. They are for the watch.
	taking   atomic.Bool
	stopped  atomic.Bool // somebody else than its own goroutines has ended it
	progress atomic.Int64

	mu      sync.Mutex // guards the rest
	changed sync.Cond  // is signalled when one of the conditions may have changed that are waited for
	pending pending
	// unsettled is how many notes the store has not settled yet.
	unsettled int
	sending   bool // a goroutine is in send
	// failure is why no further reply will be sent. It is set once.
	failure error
	// lost is the error of the first note that the store did not keep, lostNumber its number.
	// Replies before that one are still sent.
	lost       error
	lostNumber uint64
	// unknown says that the fate of a note cannot be told.
	unknown bool
	// ended says that the context has ended while something was waited for.
	ended bool
}

// receive takes in notes until the client closes its side, which is no error, or until it cannot
// go on.
func (c *chat) receive() error {
	for {
		encoded, err := c.stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at, kept, err := c.take(encoded)
		if err != nil {
			return err
		}
		if err := c.keepPace(); err != nil {
			return err
		}
		number, err := c.expect(at, kept.Time)
		if err != nil {
			return err
		}
		c.in++
		c.host.counts.received.Add(1)
		c.host.options.Store.Append(c.ctx, at, kept, notes.Ticket{Owner: c, Number: number})
	}
}

// take returns a note as it is to be kept, unless it breaks a rule.
func (c *chat) take(encoded []byte) (notes.Location, notes.Note, error) {
	kept := notes.Note{Time: c.host.clock.now()}
	maxText := c.host.options.MaxText
	if maxText == 0 || len(encoded) <= maxText {
		if latitude, longitude, ok := validate.EncodedNote(encoded); ok {
			kept.Encoded = bytes.Clone(encoded)
			return notes.Location{Latitude: latitude, Longitude: longitude}, kept, nil
		}
	}
	var note routeguide.RouteNote
	if err := proto.Unmarshal(encoded, &note); err != nil {
		return notes.Location{}, kept, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	err := validate.Note(&note)
	if err == nil {
		err = validate.Length(&note, len(encoded), maxText)
	}
	if err != nil {
		return notes.Location{}, kept, err
	}
	kept.Encoded, err = proto.Marshal(&note)
	return notes.Location{Latitude: note.GetLocation().GetLatitude(), Longitude: note.GetLocation().GetLongitude()}, kept, err
}

// paceEvery is how often a client that is too fast is looked at again.
const paceEvery = 50 * time.Millisecond

// keepPace waits until the client's pace allows another note. What it waits for is not reserved: a chat that ends
// meanwhile leaves no debt to others of the same client.
func (c *chat) keepPace() error {
	if c.pace == nil || c.pace.Allow() {
		return nil
	}
	ticker := time.NewTicker(paceEvery)
	defer ticker.Stop()
	for !c.pace.Allow() {
		select {
		case <-ticker.C:
		case <-c.host.hurried:
			return nil
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
		c.mu.Lock()
		err := c.whyOver()
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// whyOver returns why no more notes are taken in, or nil. The caller holds c.mu.
func (c *chat) whyOver() error {
	return errors.Join(c.failure, c.lost)
}

// expect makes room for a reply and returns its number. It waits while too many are pending.
func (c *chat) expect(at notes.Location, since int64) (uint64, error) {
	number, err := c.push(at, since)
	if most := c.host.options.MaxPendingInAll; err == nil && most > 0 && c.host.counts.pending.Load() > int64(most) {
		c.host.shed()
	}
	return number, err
}

func (c *chat) push(at notes.Location, since int64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitWhile(func() bool {
		return c.pending.count >= c.host.options.MaxPending && c.failure == nil && c.lost == nil
	})
	if err := c.whyOver(); err != nil {
		return 0, err
	}
	c.unsettled++
	c.host.counts.pending.Add(1)
	return c.pending.push(at, since), nil
}

// oldestPending returns the time of the oldest note that waits for its reply, or now if none does.
func (c *chat) oldestPending(now int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending.count == 0 || c.failure != nil {
		return now
	}
	return c.pending.reply(c.pending.first).since
}

// Settle takes note of what the store says of a note. It implements [notes.Owner].
func (c *chat) Settle(number uint64, position notes.Position, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unsettled--; c.unsettled == 0 {
		c.changed.Broadcast()
	}
	switch {
	case err == nil:
		c.pending.reply(number).upto = position
	case c.lost == nil || number < c.lostNumber:
		c.lost, c.lostNumber = err, number
	}
	c.unknown = c.unknown || errors.Is(err, notes.ErrUnknown)
	if c.failure == nil && !c.sending && number == c.pending.first {
		c.sending = true
		go c.send()
	}
}

// send sends the replies that are settled, and returns when there is none and the client has been
// sent all. The chat's finish joins it.
func (c *chat) send() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for held := false; ; {
		if c.lost != nil && c.lostNumber == c.pending.first {
			c.fail(c.lost)
		}
		oldest, settled := c.pending.oldest()
		if settled = settled && c.failure == nil; !settled && !held {
			break
		}
		c.mu.Unlock()
		var err error
		if settled {
			err = guarded(func() error { return c.reply(oldest) })
		} else {
			// The client may wait for what the stream holds back. When that is sent there may be
			// more replies.
			err = guarded(c.flush)
		}
		held = settled
		c.mu.Lock()
		switch {
		case err != nil:
			c.fail(err)
		case settled:
			c.sent()
		}
	}
	c.sending = false
	c.changed.Broadcast()
}

// sent removes the reply that was sent. The caller holds c.mu.
func (c *chat) sent() {
	c.pending.pop()
	if c.failure == nil {
		c.host.counts.pending.Add(-1)
	}
	if c.pending.count == 0 || c.pending.count == c.host.options.MaxPending-1 {
		c.changed.Broadcast()
	}
}

// reply sends the notes of one reply.
func (c *chat) reply(reply reply) error {
	c.replied, c.replyErr = 0, nil
	c.host.options.Store.Range(c.ctx, reply.at, notes.Span{Through: reply.upto, Newest: c.host.options.History})(c.sendChunk)
	if c.replyErr == nil && c.replied != reply.upto {
		return ErrForgotten
	}
	return c.replyErr
}

// progressBytes is how much a stream must have been given for that to count as progress: as much as it gathers
// before it writes.
const progressBytes = 32 << 10

// sendNotes sends a chunk of a reply. It returns whether to go on.
func (c *chat) sendNotes(chunk []notes.Note, err error) bool {
	c.replyErr = err
	c.beginTaking()
	sent := int64(0)
	for i := 0; i < len(chunk) && c.replyErr == nil; i++ {
		c.replyErr = c.stream.Send(chunk[i].Encoded)
		c.replied = chunk[i].Position
		sent++
		if c.untold += len(chunk[i].Encoded); c.untold >= progressBytes {
			c.untold = 0
			c.progress.Add(1)
		}
	}
	c.taking.Store(false)
	c.out += sent
	c.host.counts.sent.Add(sent)
	return c.replyErr == nil
}

// beginTaking says that the stream is about to be given something. Should the chat have been ended just now, the
// stream must not block.
func (c *chat) beginTaking() {
	c.taking.Store(true)
	if c.stopped.Load() {
		c.stream.Reset()
	}
}

// flush sends what the stream holds back.
func (c *chat) flush() error {
	c.beginTaking()
	err := c.stream.Flush()
	c.progress.Add(1)
	c.taking.Store(false)
	return err
}

// fail ends the chat with err: nothing more is sent. The caller holds c.mu.
func (c *chat) fail(err error) {
	if c.failure != nil {
		return
	}
	c.failure = err
	c.host.counts.pending.Add(-int64(c.pending.count)) // They are not pending any more.
	c.changed.Broadcast()
	// The client may wait for a reply that will never come, and so may this end's Receive.
	c.stream.StopReceiving()
}

// countPending returns how many replies are pending and will be sent.
func (c *chat) countPending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return 0
	}
	return c.pending.count
}

// end ends the chat with err, even if its stream blocks: then it is reset, since it cannot carry an error any
// more. It returns false if the chat had failed before.
func (c *chat) end(err error) bool {
	c.mu.Lock()
	first := c.failure == nil
	c.fail(err)
	c.mu.Unlock()
	c.stopped.Store(true)
	if c.taking.Load() {
		c.stream.Reset()
	}
	return first
}

// finish waits until every pending reply is sent and no goroutine sends. It returns the reason if
// some will never be sent.
func (c *chat) finish() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitWhile(func() bool { return c.pending.count > 0 && c.failure == nil })
	for c.sending {
		c.changed.Wait()
	}
	if c.failure == nil || c.lost == nil {
		return c.failure
	}
	// The client must not be told that a note was not kept if one after it was, or may have been:
	// it would send that one twice.
	c.waitWhile(func() bool { return c.unsettled > 0 })
	if !c.unknown && c.unsettled == 0 && !c.keptAfter(c.lostNumber) {
		return c.failure
	}
	return fmt.Errorf("%w, or those after it: %w", notes.ErrUnknown, c.failure)
}

// keptAfter returns whether the store has kept a note after that with a number whose reply is pending.
// The caller holds c.mu.
func (c *chat) keptAfter(number uint64) bool {
	for number++; number < c.pending.first+uint64(c.pending.count); number++ {
		if c.pending.reply(number).upto != 0 {
			return true
		}
	}
	return false
}

// waitWhile waits as long as condition holds, which it looks at whenever something has changed, and
// until the call ends; then the chat fails. The caller holds c.mu.
func (c *chat) waitWhile(condition func() bool) {
	if !condition() {
		return
	}
	over := false
	stop := context.AfterFunc(c.ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if over {
			return
		}
		c.ended = true
		c.changed.Broadcast()
		c.fail(context.Cause(c.ctx))
	})
	for !c.ended && condition() {
		c.changed.Wait()
	}
	over = true
	stop()
}
