// Package notes keeps the notes that are left at locations. It states the contract of a [Store],
// the log of notes, and holds its form in memory; the other forms are in folders of their own. It
// knows nothing of RPCs: to a store a note is bytes.
package notes

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"time"
)

// The errors of a [Store], in its own terms. Stores wrap them with what went wrong.
var (
	// ErrClosed says that the store is closed. What was asked of it did not happen.
	ErrClosed = errors.New("the store of notes is closed")
	// ErrUnavailable says that the store does not serve now: it cannot be reached, or refuses to. What was
	// asked of it certainly did not happen.
	ErrUnavailable = errors.New("the store of notes is not available")
	// ErrUnknown says that the fate of a note cannot be told.
	ErrUnknown = errors.New("the note may or may not be kept")
	// ErrNoRoom says that there is no room for a note, which is not kept.
	ErrNoRoom = errors.New("there is no room for more notes")
	// ErrDamaged says that the store read what it cannot have written.
	ErrDamaged = errors.New("the store of notes is damaged")
)

// A Location is a point on the map: latitude and longitude in E7 degrees.
type Location struct {
	Latitude  int32 `json:"latitude"`
	Longitude int32 `json:"longitude"`
}

// A Position says where in the log of its location a note is. Positions are opaque, but they grow
// along a log, and no position is ever given to two notes of one location, even if the first has been
// forgotten. 0 is before every note.
type Position uint64

// A Note is a note that is kept.
type Note struct {
	// Position is set by the store.
	Position Position
	// Time is when the note came in, in nanoseconds since 1970 UTC by the server's clock.
	Time int64
	// Encoded is the note as the client sent it. It is never empty, and must not be changed, nor
	// appended to.
	Encoded []byte
}

// Now returns the current time as notes have it.
func Now() int64 {
	return time.Now().UnixNano()
}

// An Age is what [Store.Forget] asks of a note.
type Age int

// A note is Old if it came in before the time that Forget was given, Future if it is dated in the future,
// and else Young.
const (
	Young Age = iota
	Old
	Future
)

// AgeOf returns the age of a note that came in at a time, for a Forget that removes what came in before
// another, at the present time now.
func AgeOf(time, before, now int64) Age {
	switch {
	case time < before:
		return Old
	case time > now:
		return Future
	default:
		return Young
	}
}

// A Span is a part of a log: the notes whose positions are greater than After and at most Upto.
type Span struct {
	After, Through Position
	// Newest, unless it is 0, leaves out all but that many of them, the newest.
	Newest int
}

// Everything is the span of a whole log.
var Everything = Span{Through: ^Position(0)}

// Of returns the notes of a whole log that are in the span.
func (s Span) Of(log []Note) []Note {
	after := func(position Position) int {
		i, found := slices.BinarySearchFunc(log, position, func(note Note, position Position) int {
			return cmp.Compare(note.Position, position)
		})
		if found {
			i++
		}
		return i
	}
	first, end := after(s.After), after(s.Through)
	if s.Newest > 0 {
		first = max(first, end-s.Newest)
	}
	return log[min(first, end):end]
}

// A Store keeps a log of notes for each location. All of its methods may be called concurrently.
//
// There is one order for the notes of a location. Whoever reads sees a prefix of it, less the notes
// at its start that are forgotten, that contains at least every note whose ticket was settled before.
// A note that is read is as durable as the store promises.
type Store interface {
	// Append adds a note to the end of the log of a location. It returns at once, or when there is
	// room to take the note in; what became of the note arrives on ticket, which is settled
	// exactly once, perhaps before Append returns: with the position of the note, as soon as
	// the note is as durable as the store promises, or with an error. If ctx ends while Append waits
	// for room, the ticket gets the error of ctx, and the note is not kept.
	//
	// Notes that one goroutine appends to one location come to the log in the order of the calls.
	// Tickets may be settled in any order. The note's Position is not looked at.
	Append(ctx context.Context, at Location, note Note, ticket Ticket)

	// Range reads a span of the log of a location, oldest first, in chunks of bounded size that are
	// never empty. A chunk is valid until the next one is asked for. The last pair may carry an
	// error, and then no notes. Between two chunks the store holds no lock and no resource for the
	// caller, so a caller may take its time; notes may be forgotten meanwhile.
	Range(ctx context.Context, at Location, span Span) iter.Seq2[[]Note, error]

	// Locations returns every location that has notes, in no particular order, and each one once.
	// Those that get their first note meanwhile, or lose their last, may be among them. The last
	// pair may carry an error, and then no location.
	Locations(ctx context.Context) iter.Seq2[Location, error]

	// Forget removes the start of each log: the longest one that ends with a note that came in before
	// a time, and in which every note did, or is dated in the future. So a wrong clock does not keep
	// what is behind its notes. It returns how many it removed. Other calls go on meanwhile, and
	// space is freed in the background. Several may forget at once.
	Forget(ctx context.Context, before int64) (count int, err error)

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
func Append(ctx context.Context, store Store, at Location, note Note) (Position, error) {
	settled := make(waiter, 1)
	store.Append(ctx, at, note, Ticket{Owner: settled})
	select {
	case result := <-settled:
		return result.position, result.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// waiter is the owner of one ticket, and has room for what becomes of it.
type waiter chan settlement

type settlement struct {
	position Position
	err      error
}

func (w waiter) Settle(_ uint64, position Position, err error) {
	w <- settlement{position, err}
}
