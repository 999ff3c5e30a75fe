package chat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
)

// receive appends notes until the client closes its side, which is no error, or until the chat cannot go on. A silent chat waits here
// in Receive, so the frame on the stack is small.
func (c *chat) receive() (err error) {
	defer recoverTo(&err)
	for {
		encoded, err := c.stream.Receive()
		if err == nil {
			err = c.append(encoded)
		}
		if err != nil {
			return unlessEOF(err)
		}
	}
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// append appends an encoded note to the store.
func (c *chat) append(encoded []byte) error {
	location, note, err := c.validate(encoded)
	if err != nil {
		return err
	}
	if err := c.awaitToken(); err != nil {
		return err
	}
	if c.live != nil {
		if err := c.live.Add(location); err != nil {
			return err
		}
	}
	number, err := c.enqueue(location, &note)
	if err != nil {
		return err
	}
	c.received++
	c.server.counts.received.Add(1)
	c.appendingLast.Store(!c.stream.Buffered())
	c.server.options.Store.Append(c.ctx, location, note, notes.Ticket{Owner: c, Number: number})
	c.appendingLast.Store(false)
	return nil
}

// validate returns the note in the form in which the store keeps it, or the error of the rule that it breaks.
func (c *chat) validate(encoded []byte) (notes.Location, notes.Note, error) {
	if maxText := c.server.options.MaxText; maxText == 0 || len(encoded) <= maxText {
		if latitude, longitude, ok := validate.EncodedNote(encoded); ok {
			note := notes.Note{Time: c.server.clock.now(), Encoded: bytes.Clone(encoded)}
			return notes.Location{Latitude: latitude, Longitude: longitude}, note, nil
		}
	}
	return c.decode(encoded)
}

// decode is validate for a note that must be decoded for that.
func (c *chat) decode(encoded []byte) (notes.Location, notes.Note, error) {
	var note routeguide.RouteNote
	kept := notes.Note{Time: c.server.clock.now()}
	if err := proto.Unmarshal(encoded, &note); err != nil {
		return notes.Location{}, kept, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	err := validate.Note(&note)
	if err == nil {
		err = validate.Length(&note, len(encoded), c.server.options.MaxText)
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
func (c *chat) enqueue(location notes.Location, note *notes.Note) (uint64, error) {
	number, err := c.push(location, note)
	limit := c.server.options.MaxPendingInAll
	if err == nil && limit > 0 && c.server.counts.pending.Load() > int64(limit) {
		c.server.shed()
	}
	return number, err
}

func (c *chat) push(location notes.Location, note *notes.Note) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending.count >= c.server.options.MaxPending {
		c.awaitRoom()
	}
	if c.failure != nil || c.appendErr != nil {
		return 0, c.stopCause()
	}
	c.unsettled++
	c.server.counts.pending.Add(1)
	reply := reply{location: location, time: note.Time}
	if c.live == nil && c.hold(len(note.Encoded)) {
		reply.note = note.Encoded
	}
	return c.pending.push(reply), nil
}

// awaitRoom waits while MaxPending replies are pending. The caller holds c.mu. Inlined, it would enlarge the stack of every chat.
//
//go:noinline
func (c *chat) awaitRoom() {
	c.waitWhile(func() bool {
		return c.pending.count >= c.server.options.MaxPending && c.failure == nil && c.appendErr == nil
	})
}

// maxHeldBytes is the largest number of bytes of notes that the server holds in memory, because they may be
// replies: the store need not be read for the first note of a location. Beyond it, the store is read.
const maxHeldBytes = 64 << 20

// hold counts bytes of notes held. It returns false, and counts nothing, if they would be too many. The caller
// holds c.mu.
func (c *chat) hold(bytes int) bool {
	if c.server.counts.held.Add(int64(bytes)) > maxHeldBytes {
		c.server.counts.held.Add(-int64(bytes))
		return false
	}
	c.held += bytes
	return true
}

// release is the inverse of hold, unless the chat has failed, which releases everything. The caller holds c.mu.
func (c *chat) release(bytes int) {
	if c.failure == nil {
		c.server.counts.held.Add(-int64(bytes))
		c.held -= bytes
	}
}
