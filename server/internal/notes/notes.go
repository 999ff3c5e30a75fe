// Package notes defines [Store], an append-only log of notes per location. Its implementations are in
// subfolders. The package knows nothing of RPCs: to a store, a note is bytes.
package notes

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math"
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
	// ErrIDTaken is the error of an append whose ID another note has. The note is not kept.
	ErrIDTaken = errors.New("another note was left with this id")
	// ErrOutOfRange is the error of [Store.Changes] from a number that the store cannot replay: it is too old,
	// or was never assigned.
	ErrOutOfRange = errors.New("the store of notes cannot replay this change")
)

// A Location is a point on the map: latitude and longitude in E7 degrees.
type Location struct {
	Latitude  int32 `json:"latitude"`
	Longitude int32 `json:"longitude"`
}

// A Rectangle is an area of the map, its edges included, in E7 degrees. If West is greater than East, it
// crosses the antimeridian. If South is greater than North, it is empty.
type Rectangle struct {
	South, West, North, East int32
}

// World is the rectangle of all locations.
var World = Rectangle{South: math.MinInt32, West: math.MinInt32, North: math.MaxInt32, East: math.MaxInt32}

// Contains returns whether a location is in the rectangle.
func (r Rectangle) Contains(location Location) bool {
	if location.Latitude < r.South || location.Latitude > r.North {
		return false
	}
	if r.West > r.East {
		return location.Longitude >= r.West || location.Longitude <= r.East
	}
	return location.Longitude >= r.West && location.Longitude <= r.East
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
	// ID identifies the note at its location, so that it can be appended again without being kept twice; at
	// most MaxID bytes. An empty ID identifies nothing.
	ID string
	// Encoded is the note as the client sent it. It is never empty. It must not be changed, nor appended to.
	Encoded []byte
}

const (
	// MaxID is the largest length of an ID, in bytes.
	MaxID = 64
	// IDLifetime is how long, at least, a store knows the ID of a note, counted from the note's Time.
	IDLifetime = 24 * time.Hour
)

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
	first, end := 0, len(log)
	if s.After > 0 {
		first = after(s.After)
	}
	// Most readers read to the end, and searches cost more than the rest of a short replay.
	if end > 0 && log[end-1].Position > s.Through {
		end = after(s.Through)
	}
	if s.Newest > 0 {
		first = max(first, end-s.Newest)
	}
	return log[min(first, end):end]
}

// A Sequence is the number of a change within its partition: dense, in the order of the changes, from 1.
type Sequence uint64

// A Change is a note that was kept.
type Change struct {
	Sequence Sequence
	Location Location
	// Note is the note or, from [Store.Changes] and if it was forgotten before it was announced, its Position only.
	Note Note
}

// An Announcement is a batch of changes of one partition, with consecutive numbers. Its slice must not be
// changed, but may be kept.
type Announcement struct {
	Partition int
	// Missed says that changes before these may not have been announced. There may be no changes.
	Missed  bool
	Changes []Change
}

// A Store keeps a log of notes for each location. Its methods may be called concurrently.
//
// The notes of a location have one order, the same for all readers. A read sees a prefix of it, less the
// forgotten notes at its start, that contains at least every note whose ticket was settled before. A note
// that is read is as durable as the store promises.
//
// The locations are divided into partitions, at least one. The changes of a partition have one order, which
// agrees with the order of each of its logs. The logs are the truth: announcements and replays of changes say
// which ones to read.
type Store interface {
	// Append appends a note to the log of a location. It blocks only while the store's queue is full:
	// backpressure. The ticket is settled exactly once, perhaps before Append returns: with the receipt of the
	// note once that is as durable as the store promises, or with an error. If ctx ends while Append blocks,
	// the ticket gets the error of ctx, and the note is not kept.
	//
	// Notes that one goroutine appends to one location enter the log in the order of the calls. Tickets may
	// be settled in any order. The note's Position is ignored.
	//
	// If the location was left a note with the same ID within [IDLifetime], no note is added: the ticket gets
	// the receipt of the first one, also if that was forgotten meanwhile, or [ErrIDTaken] if it had other bytes.
	Append(ctx context.Context, location Location, note Note, ticket Ticket)

	// Range reads a span of the log of a location, oldest first, in chunks of bounded size that are never
	// empty. A chunk is valid until the next one is requested. The last pair may carry an error, and then no
	// notes. Between two chunks the store holds no lock and no resource for the caller: a slow reader blocks
	// nobody, and notes may be forgotten meanwhile.
	Range(ctx context.Context, location Location, span Span) iter.Seq2[[]Note, error]

	// Locations returns every location in a rectangle that has notes, each once, in an order that is always
	// the same; after is nil, or the location after which to continue. It may include locations that get
	// their first note or lose their last one meanwhile. The last pair may carry an error, and then no
	// location. As with Range, the caller may be slow.
	//
	// The order is Z-order (see package zorder), within the part of the rectangle before the antimeridian, and
	// then within the part after it.
	Locations(ctx context.Context, within Rectangle, after *Location) iter.Seq2[Location, error]

	// Forget removes a prefix of each log: the longest one that ends with an old note and has no young one,
	// as AgeOf defines them. Notes dated in the future by a wrong clock therefore do not hold up old notes
	// after them. It returns the number of notes removed. It does not block other calls, may be called
	// concurrently, and frees space in the background.
	Forget(ctx context.Context, before int64) (count int, err error)

	// Lineage identifies the history of the store: a store that is created anew, as by an import, has another
	// one. It changes when the store finds that positions or numbers of changes were lost, and are assigned
	// again. It cannot find that a copy of all its data was put back: check the last change that you know. It is
	// never empty.
	Lineage() string

	// Ends returns the number of the last change of each partition, 0 if there is none. All changes up to
	// these can be read.
	Ends(ctx context.Context) ([]Sequence, error)

	// Changes replays the changes of a partition with numbers from a number on, up to the last one, in chunks
	// of consecutive changes that are never empty, without their notes. A reader passes the number of the last
	// change that it knows and checks that it is still the same. One more than the last number is valid, and
	// replays nothing; beyond that, or if the change is replayed no more, the error is [ErrOutOfRange]. Chunks
	// are valid until the next one is requested. As with Range, the caller may be slow.
	Changes(ctx context.Context, partition int, from Sequence) iter.Seq2[[]Change, error]

	// Subscribe calls announce with the changes of every partition, in order, once each is as durable as the
	// store promises, until unsubscribe is called and has returned. It is not called concurrently for one
	// partition. It must not block, nor call the store. Changes from before Subscribe returns may be announced or
	// not, and those that an announcement says may be missed are not announced later.
	Subscribe(announce func(Announcement)) (unsubscribe func())

	// Close drains the store: it returns once every ticket is settled and all resources are released. It is
	// idempotent. Append, Range, Locations, Forget, Ends and Changes of a closed store fail with [ErrClosed].
	Close() error
}

// A Ticket is the completion of an append. Number identifies the note to its Owner.
type Ticket struct {
	Owner  Owner
	Number uint64
}

// A Receipt says what has become of a note that was appended.
type Receipt struct {
	// Position is the note's position, and Time its time: those of the first note with its ID.
	Position Position
	Time     int64
	// Alone says that the log of the location, up to and including the note, is the note alone. A store may
	// leave it false, where that would need a read.
	Alone bool
}

// An Owner receives the results of its appends.
type Owner interface {
	// Settle is called once per ticket, by any goroutine, with the receipt of the note or with an error. It
	// must not block, nor call the store.
	Settle(number uint64, receipt Receipt, err error)
}

// Settle passes a result to the owner of the ticket. Stores call it.
func (t Ticket) Settle(receipt Receipt, err error) {
	t.Owner.Settle(t.Number, receipt, err)
}

// Append appends one note to a store, waits until its ticket is settled, and returns the receipt. If ctx ends
// before that, the note may still be kept.
func Append(ctx context.Context, store Store, location Location, note Note) (Receipt, error) {
	settled := make(waiter, 1)
	store.Append(ctx, location, note, Ticket{Owner: settled})
	select {
	case result := <-settled:
		return result.receipt, result.err
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
}

// waiter is the owner of one ticket. It has a buffer for the result.
type waiter chan settlement

type settlement struct {
	receipt Receipt
	err     error
}

func (w waiter) Settle(_ uint64, receipt Receipt, err error) {
	w <- settlement{receipt, err}
}
