// Package chat implements RouteChat: it receives notes, appends them to the store, and replies with the logs of
// their locations; and LeaveNote, which appends one. It knows the messages of the contract and the store of notes, but no RPC protocol and no
// connection.
package chat

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
)

// A Stream is the bidirectional stream of one chat. Receive is called by one goroutine at a time, and so are
// Send and Flush. Both sides run concurrently.
type Stream interface {
	// Receive returns the client's next note, encoded. The bytes are valid until the next call. After the last
	// note the error is io.EOF.
	Receive() ([]byte, error)
	// Send sends notes to the client. It may buffer them until Flush.
	Send(notes []notes.Note) error
	// Flush sends what Send has buffered.
	Flush() error
	// TrySend sends an encoded note without blocking. It returns false, and sends nothing, where Send or Flush might block. It is called only
	// while neither of them is, and nothing is buffered.
	TrySend(encoded []byte) bool
	// Buffered returns whether a part of a further note has arrived. The goroutine calls it that calls Receive.
	Buffered() bool
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
)

// ErrMalformed is the error of a message that is not a RouteNote.
var ErrMalformed = errors.New("unmarshal message: not a RouteNote")

type chat struct {
	ctx     context.Context //nolint:containedctx // The chat lives as long as the call of this context.
	server  *Server
	stream  Stream
	limiter *rate.Limiter // token bucket of the client; nil is no limit

	live *live.Chat // of a chat that follows; else nil

	received int64 // notes appended; owned by the receiver

	// The sender owns the next fields. sendChunk is the method value of sendNotes, created once per chat to
	// save an allocation per reply.
	sendChunk func([]notes.Note, error) bool
	position  notes.Position // of the last note sent
	replyErr  error          // why the current reply ended early
	sent      int64          // notes sent

	appendingLast atomic.Bool // the receiver is in Append, with the last note that has arrived
	inFlight      atomic.Bool // a Send or Flush is in flight
	stopped       atomic.Bool // the chat was ended by another goroutine than its own

	mu      sync.Mutex // guards the rest
	changed sync.Cond  // broadcast on every change that a waitWhile condition may depend on
	pending pending
	held    int // bytes of the notes in pending, while they count towards maxHeldBytes
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
	// woken is set while the hub has something to send, and stopCalled is the cause of stop. Only of a chat that follows.
	woken      bool
	stopCalled error
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
func (c *chat) Settle(number uint64, receipt notes.Receipt, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unsettled--; c.unsettled == 0 {
		c.changed.Broadcast()
	}
	switch {
	case err == nil:
		reply := c.pending.reply(number)
		reply.through = receipt.Position
		if !receipt.Alone {
			c.release(len(reply.note))
			reply.note = nil
		}
	case c.appendErr == nil || number < c.appendErrNumber:
		c.appendErr, c.appendErrNumber = err, number
	}
	c.unknownFate = c.unknownFate || errors.Is(err, notes.ErrUnknown)
	if c.failure == nil && !c.sending && number == c.pending.first && !c.trySend() {
		c.sending = true
		if c.live != nil {
			go c.sendFollowing()
		} else {
			go c.send()
		}
	}
}

// trySend sends the only pending reply, if that takes no goroutine: the store has settled the note within Append, and the note is alone
// at its location. Notes that are written ahead are answered together by send. The caller holds c.mu.
func (c *chat) trySend() bool {
	if c.live != nil || c.pending.count > 1 || !c.appendingLast.Load() {
		return false
	}
	reply, settled := c.pending.oldest()
	if !settled || reply.note == nil || !c.stream.TrySend(reply.note) {
		return false
	}
	c.sent++
	c.server.counts.sent.Add(1)
	c.pop()
	return true
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
	c.release(len(c.pending.reply(c.pending.first).note))
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
	if reply.note != nil {
		c.sendNotes([]notes.Note{{Position: reply.through, Encoded: reply.note}}, nil)
		return c.replyErr
	}
	span := notes.Span{Through: reply.through, Newest: c.server.options.History}
	c.server.options.Store.Range(c.ctx, reply.location, span)(c.sendChunk)
	if c.replyErr == nil && c.position != reply.through {
		return ErrForgotten
	}
	return c.replyErr
}

// sendNotes sends a chunk of a reply. It returns false when the reply must end.
func (c *chat) sendNotes(chunk []notes.Note, err error) bool {
	if c.replyErr = err; err != nil || len(chunk) == 0 {
		return err == nil
	}
	c.beginWrite()
	c.replyErr = c.stream.Send(chunk)
	c.inFlight.Store(false)
	c.position = chunk[len(chunk)-1].Position
	c.sent += int64(len(chunk))
	c.server.counts.sent.Add(int64(len(chunk)))
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
	c.server.counts.held.Add(-int64(c.held))
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

// conclude sends the pending replies after the receiver has returned err, and returns the error that the chat ends with.
func (c *chat) conclude(err error) error {
	defer c.server.remove(c)
	if _, panicked := errors.AsType[*PanicError](err); panicked {
		c.end(err) // The ticket of the last note may never be settled: do not wait for its reply.
	}
	if failure := c.finish(); failure != nil {
		return failure
	}
	return err
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
