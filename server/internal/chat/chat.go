// Package chat implements RouteChat: it receives notes, appends them to the store, and replies with the logs of
// their locations. It knows the messages of the contract and the store of notes, but no RPC protocol and no
// connection.
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

// A Stream is the bidirectional stream of one chat. Receive is called by one goroutine at a time, and so are
// Send and Flush. Both sides run concurrently.
type Stream interface {
	// Receive returns the client's next note, encoded. The bytes are valid until the next call. After the last
	// note the error is io.EOF.
	Receive() ([]byte, error)
	// Send sends an encoded note to the client. It may buffer it until Flush.
	Send(encoded []byte) error
	// Flush sends what Send has buffered.
	Flush() error
	// StopReceiving makes Receive return an error once the notes that have arrived already are read. It
	// unblocks a Receive in flight.
	StopReceiving()
	// Reset ends the stream at once, in both directions. A Send or a Flush in flight returns an error.
	Reset()
}

// ErrForgotten is the error of a reply whose own note passed its retention while the client read earlier
// replies.
var ErrForgotten = errors.New("the note was forgotten before its reply was sent (read replies sooner)")

// The errors of a chat that concern neither a note nor the store.
var (
	// ErrTooManyPending ends the chats with the most pending replies once MaxPendingInAll is exceeded.
	ErrTooManyPending = errors.New("too many replies are pending (read replies while sending notes)")
	// ErrStalled ends the chat of a slow consumer.
	ErrStalled = errors.New("slow consumer: replies were not read within the stall timeout")
)

// ErrMalformed is the error of a message that is not a RouteNote.
var ErrMalformed = errors.New("unmarshal message: not a RouteNote")

type chat struct {
	ctx     context.Context //nolint:containedctx // The chat lives as long as the call of this context.
	server  *Server
	stream  Stream
	limiter *rate.Limiter // token bucket of the client; nil is no limit

	received int64 // notes appended; owned by the receiver

	// The sender owns the next fields. sendChunk is the method value of sendNotes, created once per chat to
	// save an allocation per reply.
	sendChunk  func([]notes.Note, error) bool
	position   notes.Position // of the last note sent
	replyErr   error          // why the current reply ended early
	sent       int64          // notes sent
	unreported int            // bytes sent since progress was last incremented

	// For the watchdog: inFlight is set while a Send or Flush is in flight, and progress counts completed
	// chunks of progressBytes and completed flushes.
	inFlight atomic.Bool
	progress atomic.Int64
	stopped  atomic.Bool // the chat was ended by another goroutine than its own

	mu      sync.Mutex // guards the rest
	changed sync.Cond  // broadcast on every change that a waitWhile condition may depend on
	pending pending
	// unsettled is the number of notes whose tickets are not settled.
	unsettled int
	sending   bool // a goroutine is in send
	// failure is the cause after which no reply is sent. It is set once.
	failure error
	// appendErr is the store's error for the lowest-numbered note that was not kept, appendErrNumber that
	// note's number. Replies to earlier notes are still sent.
	appendErr       error
	appendErrNumber uint64
	// unknownFate is set by a ticket that was settled with notes.ErrUnknown.
	unknownFate bool
	// ctxDone is set when the context ends during waitWhile.
	ctxDone bool
}

// receive appends notes until the client closes its side, which is no error, or until the chat cannot go on.
func (c *chat) receive() error {
	for {
		encoded, err := c.stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		location, note, err := c.validate(encoded)
		if err != nil {
			return err
		}
		if err := c.awaitToken(); err != nil {
			return err
		}
		number, err := c.enqueue(location, note.Time)
		if err != nil {
			return err
		}
		c.received++
		c.server.counts.received.Add(1)
		c.server.options.Store.Append(c.ctx, location, note, notes.Ticket{Owner: c, Number: number})
	}
}

// validate returns the note in the form in which the store keeps it, or the error of the rule that it breaks.
func (c *chat) validate(encoded []byte) (notes.Location, notes.Note, error) {
	kept := notes.Note{Time: c.server.clock.now()}
	maxText := c.server.options.MaxText
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

// limiterInterval is the interval at which a rate-limited chat asks for a token again.
const limiterInterval = 50 * time.Millisecond

// awaitToken waits for a token of the client's bucket. It polls instead of reserving: a chat that ends while it
// waits must not leave the client's other chats in debt.
func (c *chat) awaitToken() error {
	if c.limiter == nil || c.limiter.Allow() {
		return nil
	}
	ticker := time.NewTicker(limiterInterval)
	defer ticker.Stop()
	for !c.limiter.Allow() {
		select {
		case <-ticker.C:
		case <-c.server.rateLimitLifted:
			return nil
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
		c.mu.Lock()
		err := c.stopCause()
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// stopCause returns the cause for which the chat receives no more notes, or nil. The caller holds c.mu.
func (c *chat) stopCause() error {
	return errors.Join(c.failure, c.appendErr)
}

// enqueue adds a pending reply and returns its number. It blocks while MaxPending replies are pending.
func (c *chat) enqueue(location notes.Location, time int64) (uint64, error) {
	number, err := c.push(location, time)
	limit := c.server.options.MaxPendingInAll
	if err == nil && limit > 0 && c.server.counts.pending.Load() > int64(limit) {
		c.server.shed()
	}
	return number, err
}

func (c *chat) push(location notes.Location, time int64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitWhile(func() bool {
		return c.pending.count >= c.server.options.MaxPending && c.failure == nil && c.appendErr == nil
	})
	if err := c.stopCause(); err != nil {
		return 0, err
	}
	c.unsettled++
	c.server.counts.pending.Add(1)
	return c.pending.push(location, time), nil
}

// oldestPending returns the time of the oldest note whose reply is pending, or now if there is none.
func (c *chat) oldestPending(now int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending.count == 0 || c.failure != nil {
		return now
	}
	return c.pending.reply(c.pending.first).time
}

// Settle records the store's result for a note. It implements [notes.Owner].
func (c *chat) Settle(number uint64, position notes.Position, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unsettled--; c.unsettled == 0 {
		c.changed.Broadcast()
	}
	switch {
	case err == nil:
		c.pending.reply(number).through = position
	case c.appendErr == nil || number < c.appendErrNumber:
		c.appendErr, c.appendErrNumber = err, number
	}
	c.unknownFate = c.unknownFate || errors.Is(err, notes.ErrUnknown)
	if c.failure == nil && !c.sending && number == c.pending.first {
		c.sending = true
		go c.send()
	}
}

// send sends the settled replies in order. It returns when none is left and the stream is flushed. finish joins
// it.
func (c *chat) send() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for unflushed := false; ; {
		if c.appendErr != nil && c.appendErrNumber == c.pending.first {
			c.fail(c.appendErr)
		}
		oldest, settled := c.pending.oldest()
		if settled = settled && c.failure == nil; !settled && !unflushed {
			break
		}
		c.mu.Unlock()
		var err error
		if settled {
			err = guarded(func() error { return c.reply(oldest) })
		} else {
			// The client may wait for a buffered reply. More replies may settle during the flush.
			err = guarded(c.flush)
		}
		unflushed = settled
		c.mu.Lock()
		switch {
		case err != nil:
			c.fail(err)
		case settled:
			c.pop()
		}
	}
	c.sending = false
	c.changed.Broadcast()
}

// pop removes the reply that was sent. The caller holds c.mu.
func (c *chat) pop() {
	c.pending.pop()
	if c.failure == nil {
		c.server.counts.pending.Add(-1)
	}
	if c.pending.count == 0 || c.pending.count == c.server.options.MaxPending-1 {
		c.changed.Broadcast()
	}
}

// reply sends the notes of one reply.
func (c *chat) reply(reply reply) error {
	c.position, c.replyErr = 0, nil
	span := notes.Span{Through: reply.through, Newest: c.server.options.History}
	c.server.options.Store.Range(c.ctx, reply.location, span)(c.sendChunk)
	if c.replyErr == nil && c.position != reply.through {
		return ErrForgotten
	}
	return c.replyErr
}

// progressBytes is the number of bytes that count as one unit of progress: the size of the stream's write
// buffer.
const progressBytes = 32 << 10

// sendNotes sends a chunk of a reply. It returns false when the reply must end.
func (c *chat) sendNotes(chunk []notes.Note, err error) bool {
	c.replyErr = err
	c.beginWrite()
	sent := int64(0)
	for i := 0; i < len(chunk) && c.replyErr == nil; i++ {
		c.replyErr = c.stream.Send(chunk[i].Encoded)
		c.position = chunk[i].Position
		sent++
		if c.unreported += len(chunk[i].Encoded); c.unreported >= progressBytes {
			c.unreported = 0
			c.progress.Add(1)
		}
	}
	c.inFlight.Store(false)
	c.sent += sent
	c.server.counts.sent.Add(sent)
	return c.replyErr == nil
}

// beginWrite marks a write as in flight. If the chat was ended meanwhile, it resets the stream, so that the
// write cannot block.
func (c *chat) beginWrite() {
	c.inFlight.Store(true)
	if c.stopped.Load() {
		c.stream.Reset()
	}
}

// flush sends what the stream has buffered.
func (c *chat) flush() error {
	c.beginWrite()
	err := c.stream.Flush()
	c.progress.Add(1)
	c.inFlight.Store(false)
	return err
}

// fail ends the chat with err: no further reply is sent. The caller holds c.mu.
func (c *chat) fail(err error) {
	if c.failure != nil {
		return
	}
	c.failure = err
	c.server.counts.pending.Add(-int64(c.pending.count)) // Replies that are never sent are not pending.
	c.changed.Broadcast()
	// Unblock the receiver: the client may send nothing more before it gets a reply that never comes.
	c.stream.StopReceiving()
}

// countPending returns the number of replies that are pending and will be sent.
func (c *chat) countPending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return 0
	}
	return c.pending.count
}

// end ends the chat with err. If a write is in flight, it resets the stream, which then cannot carry err. It
// returns false if the chat had failed before.
func (c *chat) end(err error) bool {
	c.mu.Lock()
	first := c.failure == nil
	c.fail(err)
	c.mu.Unlock()
	c.stopped.Store(true)
	if c.inFlight.Load() {
		c.stream.Reset()
	}
	return first
}

// finish waits until every pending reply is sent and the sending goroutine has returned. It returns the cause
// if some replies are never sent.
func (c *chat) finish() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitWhile(func() bool { return c.pending.count > 0 && c.failure == nil })
	for c.sending {
		c.changed.Wait()
	}
	if c.failure == nil || c.appendErr == nil {
		return c.failure
	}
	// A client that is told "not kept" sends the note and all later ones again. That is safe only if no later
	// note was kept: otherwise it would be stored twice.
	c.waitWhile(func() bool { return c.unsettled > 0 })
	if !c.unknownFate && c.unsettled == 0 && !c.keptAfter(c.appendErrNumber) {
		return c.failure
	}
	if errors.Is(c.failure, notes.ErrUnknown) {
		return c.failure
	}
	return fmt.Errorf("%w, or later notes: %w", notes.ErrUnknown, c.failure)
}

// keptAfter returns whether the store has kept a later note than the one with a number. That note's reply
// must be pending. The caller holds c.mu.
func (c *chat) keptAfter(number uint64) bool {
	for number++; number < c.pending.first+uint64(c.pending.count); number++ {
		if c.pending.reply(number).through != 0 {
			return true
		}
	}
	return false
}

// waitWhile waits while condition holds. It evaluates condition on every broadcast of c.changed. If the context
// ends first, the chat fails. The caller holds c.mu.
func (c *chat) waitWhile(condition func() bool) {
	if !condition() {
		return
	}
	done := false
	stop := context.AfterFunc(c.ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if done {
			return
		}
		c.ctxDone = true
		c.changed.Broadcast()
		c.fail(context.Cause(c.ctx))
	})
	for !c.ctxDone && condition() {
		c.changed.Wait()
	}
	done = true
	stop()
}
