// Package notes defines [Store], an append-only log of notes per location, and implements it in memory. Other
// implementations are in subfolders. The package knows nothing of RPCs: to a store, a note is bytes.
package notes

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"time"
)

// The errors of a [Store]. Stores wrap them with the cause.
var (
	// ErrClosed is the error of calls on a closed store. The call had no effect.
	ErrClosed = errors.New("the store of notes is closed")
	// ErrUnavailable is the error of a store that cannot be reached, or that refuses calls. The call had no
	// effect.
	ErrUnavailable = errors.New("the store of notes is unavailable")
	// ErrUnknown is the error of an append with an unknown outcome.
	ErrUnknown = errors.New("the note may or may not be kept")
	// ErrNoRoom is the error of an append to a store without free space. The note is not kept.
	ErrNoRoom = errors.New("the store of notes is full")
	// ErrDamaged is the error of a store that has read data that it cannot have written.
	ErrDamaged = errors.New("the store of notes is damaged")
)

// A Location is a point on the map: latitude and longitude in E7 degrees.
type Location struct {
	Latitude  int32 `json:"latitude"`
	Longitude int32 `json:"longitude"`
}

// A Position is the opaque offset of a note in the log of its location. Positions grow along a log. A
// position is never reused at its location, even after its note was forgotten. 0 is before every note.
type Position uint64

// A Note is an entry of a log.
type Note struct {
	// Position is assigned by the store.
	Position Position
	// Time is the time of receipt by the server's clock, in nanoseconds since 1970 UTC.
	Time int64
	// Encoded is the note as the client sent it. It is never empty. It must not be changed, nor appended to.
	Encoded []byte
}

// Now returns the current time in the unit of [Note].Time.
func Now() int64 {
	return time.Now().UnixNano()
}

// An Age is the class of a note in [Store.Forget].
type Age int

// A note is Old if its time is before the cutoff of Forget, Future if its time is in the future, and else
// Young.
const (
	Young Age = iota
	Old
	Future
)

// AgeOf returns the age of a note with a time, for a Forget with the cutoff before, at the present time now.
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

// A Span is a range of a log: the notes with positions greater than After and at most Through.
type Span struct {
	After, Through Position
	// Newest is the largest number of notes: the newest ones of the range. 0 is no limit.
	Newest int
}

// Everything is the span of a whole log.
var Everything = Span{Through: ^Position(0)}

// Of returns the subslice of a whole log that is in the span.
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

// A Store keeps a log of notes for each location. Its methods may be called concurrently.
//
// The notes of a location have one order, the same for all readers. A read sees a prefix of it, less the
// forgotten notes at its start, that contains at least every note whose ticket was settled before. A note
// that is read is as durable as the store promises.
type Store interface {
	// Append appends a note to the log of a location. It blocks only while the store's queue is full:
	// backpressure. The ticket is settled exactly once, perhaps before Append returns: with the position of
	// the note once that is as durable as the store promises, or with an error. If ctx ends while Append
	// blocks, the ticket gets the error of ctx, and the note is not kept.
	//
	// Notes that one goroutine appends to one location enter the log in the order of the calls. Tickets may
	// be settled in any order. The note's Position is ignored.
	Append(ctx context.Context, location Location, note Note, ticket Ticket)

	// Range reads a span of the log of a location, oldest first, in chunks of bounded size that are never
	// empty. A chunk is valid until the next one is requested. The last pair may carry an error, and then no
	// notes. Between two chunks the store holds no lock and no resource for the caller: a slow reader blocks
	// nobody, and notes may be forgotten meanwhile.
	Range(ctx context.Context, location Location, span Span) iter.Seq2[[]Note, error]

	// Locations returns every location that has notes, each once, in no particular order. It may include
	// locations that get their first note or lose their last one meanwhile. The last pair may carry an error,
	// and then no location.
	Locations(ctx context.Context) iter.Seq2[Location, error]

	// Forget removes a prefix of each log: the longest one that ends with an old note and has no young one,
	// as AgeOf defines them. Notes dated in the future by a wrong clock therefore do not hold up old notes
	// after them. It returns the number of notes removed. It does not block other calls, may be called
	// concurrently, and frees space in the background.
	Forget(ctx context.Context, before int64) (count int, err error)

	// Close drains the store: it returns once every ticket is settled and all resources are released. It is
	// idempotent. All other calls on a closed store fail with [ErrClosed].
	Close() error
}

// A Ticket is the completion of an append. Number identifies the note to its Owner.
type Ticket struct {
	Owner  Owner
	Number uint64
}

// An Owner receives the results of its appends.
type Owner interface {
	// Settle is called once per ticket, by any goroutine, with the position of the note or with an error. It
	// must not block, nor call the store.
	Settle(number uint64, position Position, err error)
}

// Settle passes a result to the owner of the ticket. Stores call it.
func (t Ticket) Settle(position Position, err error) {
	t.Owner.Settle(t.Number, position, err)
}

// Append appends one note to a store, waits until its ticket is settled, and returns the note's position. If
// ctx ends before that, the note may still be kept.
func Append(ctx context.Context, store Store, location Location, note Note) (Position, error) {
	settled := make(waiter, 1)
	store.Append(ctx, location, note, Ticket{Owner: settled})
	select {
	case result := <-settled:
		return result.position, result.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// waiter is the owner of one ticket. It has a buffer for the result.
type waiter chan settlement

type settlement struct {
	position Position
	err      error
}

func (w waiter) Settle(_ uint64, position Position, err error) {
	w <- settlement{position, err}
}
