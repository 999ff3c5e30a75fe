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

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/validate"
)

// MaxPending is how many notes of one chat may wait for their replies. A client that has written
// so many without reading is not read from until it does.
const MaxPending = 1 << 18

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
}

// ErrForgotten says that a note was forgotten while its reply waited for the client to take the
// replies before.
var ErrForgotten = errors.New("the note was forgotten before it could be answered")

// ErrMalformed says that what a client has sent is no RouteNote.
var ErrMalformed = errors.New("unmarshal message: it is no RouteNote")

// A Host holds the chats of a server. Its methods may be called concurrently.
type Host struct {
	store notes.Store
	// history is how many notes a reply has at most, the newest; 0 is all.
	history int

	mu    sync.Mutex // guards chats
	chats map[*chat]struct{}
}

// NewHost returns a host whose chats keep notes in store. Unless it is 0, history is how many notes
// a reply has at most: the newest ones of its log.
func NewHost(store notes.Store, history int) *Host {
	return &Host{store: store, history: history, chats: make(map[*chat]struct{})}
}

// OldestPending returns the time of the oldest note that still waits for its reply, or now, if that is
// older. Notes from then on must not be forgotten: a reply ends with the note that asked for it.
func (h *Host) OldestPending(now int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	oldest := now
	for chat := range h.chats {
		oldest = min(oldest, chat.oldestPending(now))
	}
	return oldest
}

// Serve holds one chat and returns when it is over: with nil if the client has closed its side and
// has all its replies. Otherwise with the reason: the error of a note that breaks a rule, of the
// store, or of the stream. Notes before the one that the error is about are kept, and their
// replies sent, as long as the stream takes them.
//
// The two directions are independent. The calling goroutine receives and appends; a second one
// exists only while there are replies that the store has settled, and sends them in order.
func (h *Host) Serve(ctx context.Context, stream Stream) error {
	chat := &chat{ctx: ctx, store: h.store, history: h.history, stream: stream}
	chat.changed.L = &chat.mu
	chat.sendChunk = chat.sendNotes
	h.add(chat)
	defer h.remove(chat)
	err := chat.receive()
	if failure := chat.finish(); failure != nil {
		return failure
	}
	return err
}

func (h *Host) add(chat *chat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.chats[chat] = struct{}{}
}

func (h *Host) remove(chat *chat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.chats, chat)
}

type chat struct {
	ctx     context.Context //nolint:containedctx // A chat is one call, and this is that call's.
	store   notes.Store
	history int
	stream  Stream

	// What follows is the sender's. sendChunk is its sendNotes, made a function once: for each reply
	// that would be an allocation.
	sendChunk func([]notes.Note, error) bool
	replied   notes.Position // the last note that was sent
	replyErr  error          // what ended the reply

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
		at, kept, err := take(encoded)
		if err != nil {
			return err
		}
		number, err := c.expect(at, kept.Time)
		if err != nil {
			return err
		}
		c.store.Append(c.ctx, at, kept, notes.Ticket{Owner: c, Number: number})
	}
}

// take returns a note as it is to be kept, unless it breaks a rule.
func take(encoded []byte) (notes.Location, notes.Note, error) {
	kept := notes.Note{Time: notes.Now()}
	if latitude, longitude, ok := validate.EncodedNote(encoded); ok {
		kept.Encoded = bytes.Clone(encoded)
		return notes.Location{Latitude: latitude, Longitude: longitude}, kept, nil
	}
	var note routeguide.RouteNote
	err := proto.Unmarshal(encoded, &note)
	if err != nil {
		return notes.Location{}, kept, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := validate.Note(&note); err != nil {
		return notes.Location{}, kept, err
	}
	kept.Encoded, err = proto.Marshal(&note)
	return notes.Location{Latitude: note.GetLocation().GetLatitude(), Longitude: note.GetLocation().GetLongitude()}, kept, err
}

// expect makes room for a reply and returns its number. It waits while too many are pending.
func (c *chat) expect(at notes.Location, since int64) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitWhile(func() bool {
		return c.pending.count >= MaxPending && c.failure == nil && c.lost == nil
	})
	if err := errors.Join(c.failure, c.lost); err != nil {
		return 0, err
	}
	c.unsettled++
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
			err = c.reply(oldest)
		} else {
			// The client may wait for what the stream holds back. When that is sent there may be
			// more replies.
			err = c.stream.Flush()
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
	if c.pending.count == 0 || c.pending.count == MaxPending-1 {
		c.changed.Broadcast()
	}
}

// reply sends the notes of one reply.
func (c *chat) reply(reply reply) error {
	c.replied, c.replyErr = 0, nil
	c.store.Range(c.ctx, reply.at, notes.Span{Upto: reply.upto, Newest: c.history})(c.sendChunk)
	if c.replyErr == nil && c.replied != reply.upto {
		return ErrForgotten
	}
	return c.replyErr
}

// sendNotes sends a chunk of a reply. It returns whether to go on.
func (c *chat) sendNotes(chunk []notes.Note, err error) bool {
	c.replyErr = err
	for i := 0; i < len(chunk) && c.replyErr == nil; i++ {
		c.replyErr = c.stream.Send(chunk[i].Encoded)
		c.replied = chunk[i].Position
	}
	return c.replyErr == nil
}

// fail ends the chat with err: nothing more is sent. The caller holds c.mu.
func (c *chat) fail(err error) {
	if c.failure != nil {
		return
	}
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
