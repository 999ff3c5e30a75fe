package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"

	"example.com/routeguide/server/internal/notes"
)

const (
	// window is the number of notes of a chat in flight.
	window = 1000
	// textBytes is the length of a note's text. The encoded note has about 45 bytes.
	textBytes = 29
)

// counter counts the notes of a run of the command, over all stores: each one gets another location.
type counter struct {
	atomic.Int64
}

// next returns the next number, and false if it were beyond limit.
func (c *counter) next(limit int64) (int64, bool) {
	number := c.Add(1)
	if number > limit {
		c.Add(-1)
		return 0, false
	}
	return number, true
}

// note returns the note of a number, encoded as a RouteNote.
func (b *bench) note(number int64) (notes.Location, notes.Note) {
	latitude, longitude := b.places.At(number)
	location := notes.Location{Latitude: latitude, Longitude: longitude}
	return location, b.noteAt(location, number)
}

func (b *bench) noteAt(location notes.Location, number int64) notes.Note {
	var buffer [2 * (1 + 10)]byte // two tags and varints
	point := protowire.AppendVarint(protowire.AppendTag(buffer[:0], 1, protowire.VarintType), uint64(int64(location.Latitude)))
	point = protowire.AppendVarint(protowire.AppendTag(point, 2, protowire.VarintType), uint64(int64(location.Longitude)))
	encoded := make([]byte, 0, 4+len(point)+textBytes) // two tags and lengths
	encoded = protowire.AppendBytes(protowire.AppendTag(encoded, 1, protowire.BytesType), point)
	encoded = protowire.AppendString(protowire.AppendTag(encoded, 2, protowire.BytesType), b.places.Text(number, textBytes))
	return notes.Note{Time: notes.Now(), Encoded: encoded}
}

// chats are goroutines that append notes to a store and read the replies.
type chats struct {
	bench *bench
	store notes.Store
	limit int64 // number of the last note

	answered atomic.Int64 // notes
	read     atomic.Int64 // notes in all replies
}

// run runs the chats until ctx ends or limit is reached, and every note is answered.
func (c *chats) run(ctx context.Context, count int) error {
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make(chan error, count)
	var group sync.WaitGroup
	for range count {
		group.Go(func() {
			if err := newChat(c).run(running); err != nil {
				errs <- err
				cancel(err)
			}
		})
	}
	group.Wait()
	close(errs)
	return <-errs
}

// chat is one goroutine. It owns all but what mu guards.
type chat struct {
	*chats

	locations [window]notes.Location // of the notes in flight, by number modulo window
	next      uint64                 // number of the next note
	sendChunk func([]notes.Note, error) bool
	last      notes.Position // of the last note that was read
	replied   int64          // notes in replies that chats.read lacks
	err       error          // of the reply being read

	mu       sync.Mutex // guards the rest
	changed  sync.Cond  // the oldest note is settled
	oldest   uint64     // number of the oldest note in flight
	receipts [window]settlement
}

// settlement is what a ticket was settled with.
type settlement struct {
	settled bool
	receipt notes.Receipt
	err     error
}

func newChat(chats *chats) *chat {
	chat := &chat{chats: chats}
	chat.changed.L = &chat.mu
	chat.sendChunk = chat.readChunk
	return chat
}

// Settle implements [notes.Owner].
func (c *chat) Settle(number uint64, receipt notes.Receipt, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.receipts[number%window] = settlement{settled: true, receipt: receipt, err: err}
	if number == c.oldest {
		c.changed.Signal()
	}
}

func (c *chat) run(ctx context.Context) error {
	storeCtx := context.WithoutCancel(ctx) // What is in flight at the end is answered.
	for oldest := uint64(0); ; {
		for more := ctx.Err() == nil; more && c.next < oldest+window; {
			more = c.append(storeCtx)
		}
		if oldest == c.next {
			return nil
		}
		first := oldest
		for settled := c.take(true); settled.settled; settled = c.take(false) {
			if settled.err != nil {
				return settled.err
			}
			if err := c.reply(storeCtx, c.locations[oldest%window], settled.receipt); err != nil {
				return err
			}
			oldest++
		}
		c.answered.Add(int64(oldest - first))
		c.read.Add(c.replied)
		c.replied = 0
	}
}

// append appends the next note, and returns false if there is none.
func (c *chat) append(ctx context.Context) bool {
	number, ok := c.bench.number.next(c.limit)
	if !ok {
		return false
	}
	location, note := c.bench.note(number)
	c.locations[c.next%window] = location
	c.next++
	c.store.Append(ctx, location, note, notes.Ticket{Owner: c, Number: c.next - 1})
	return true
}

// take removes the settlement of the oldest note, and waits for it if it is to. The result is not settled if there is
// none.
func (c *chat) take(wait bool) settlement {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := &c.receipts[c.oldest%window]
	for wait && !oldest.settled {
		c.changed.Wait()
	}
	taken := *oldest
	if taken.settled {
		*oldest = settlement{}
		c.oldest++
	}
	return taken
}

// reply reads the reply to a note, as the server's chat does.
func (c *chat) reply(ctx context.Context, location notes.Location, receipt notes.Receipt) error {
	if receipt.Alone {
		c.replied++
		return nil
	}
	c.last, c.err = 0, nil
	c.store.Range(ctx, location, notes.Span{Through: receipt.Position, Newest: c.bench.History})(c.sendChunk)
	if c.err == nil && c.last != receipt.Position {
		return fmt.Errorf("the reply to the note at position %d ends with position %d", receipt.Position, c.last)
	}
	return c.err
}

// readChunk reads a chunk of a reply.
func (c *chat) readChunk(chunk []notes.Note, err error) bool {
	if c.err = err; err != nil {
		return false
	}
	c.replied += int64(len(chunk))
	c.last = chunk[len(chunk)-1].Position
	return true
}
