// Package notes keeps the notes that are left at locations. It states the contract of a [Store],
// the log of notes, and holds its form in memory; the other forms are in folders of their own. It
// knows nothing of RPCs: to a store a note is bytes.
package notes

import (
	"context"
	"errors"
	"iter"
)

// ErrClosed is the error of whatever is asked of a [Store] after Close.
var ErrClosed = errors.New("the store of notes is closed")

// A Location is a point on the map: latitude and longitude in E7 degrees.
type Location struct {
	Latitude, Longitude int32
}

// A Position says where in the log of its location a note is. Positions are opaque, but they grow
// along a log, and no position is ever given to two notes of one location. 0 is before every note.
type Position uint64

// A Note is a note that is kept.
type Note struct {
	Position Position
	// Encoded is the note as it was appended. It must not be changed.
	Encoded []byte
}

// A Store keeps a log of notes for each location. All of its methods may be called concurrently.
//
// There is one order for the notes of a location, and whoever reads sees a prefix of it that
// contains at least every note whose ticket was settled before. A note that is read is as durable
// as the store promises.
type Store interface {
	// Append adds a note to the end of the log of a location. It returns at once, or when there is
	// room to take the note in; what became of the note arrives on ticket, which is settled
	// exactly once, perhaps before Append returns: with the position of the note, as soon as
	// the note is as durable as the store promises, or with an error. If ctx ends while Append waits
	// for room, the ticket gets the error of ctx, and the note is not kept.
	//
	// Notes that one goroutine appends to one location come to the log in the order of the calls.
	// Tickets may be settled in any order.
	//
	// The store keeps encoded, so it must not be changed afterwards.
	Append(ctx context.Context, at Location, encoded []byte, ticket Ticket)

	// Range reads the notes at a location whose positions are greater than after and at most upto,
	// oldest first, in chunks of bounded size. A chunk is valid until the next one is asked for;
	// the notes in it are never empty. The last pair may carry an error, and then no notes.
	// Between two chunks the store holds no lock and no resource for the caller, so a caller may
	// take its time.
	Range(ctx context.Context, at Location, after, upto Position) iter.Seq2[[]Note, error]

	// Close lets go of everything, once every ticket is settled. Closing again does nothing.
	// Whatever else is asked of a closed store fails with [ErrClosed].
	Close() error
}

// A Ticket says who hears what became of an appended note. Number is the Owner's own, and tells its
// notes apart.
type Ticket struct {
	Owner  Owner
	Number uint64
}

// An Owner hears what became of the notes that it appended.
type Owner interface {
	// Settle is called once for each ticket, by any goroutine: with the position of the note, or
	// with the error for which it has none. It must not block, nor call the store.
	Settle(number uint64, position Position, err error)
}

// Settle tells the owner of the ticket. It is for stores to call.
func (t Ticket) Settle(position Position, err error) {
	t.Owner.Settle(t.Number, position, err)
}

// Append adds one note to a store and waits until its ticket is settled. It returns the position
// of the note. Should ctx end before that, the note may still be kept.
func Append(ctx context.Context, store Store, at Location, encoded []byte) (Position, error) {
	settled := make(waiter, 1)
	store.Append(ctx, at, encoded, Ticket{Owner: settled})
	select {
	case result := <-settled:
		return result.position, result.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// waiter is the owner of one ticket, and has room for what becomes of it.
type waiter chan struct {
	position Position
	err      error
}

func (w waiter) Settle(_ uint64, position Position, err error) {
	w <- struct {
		position Position
		err      error
	}{position, err}
}
