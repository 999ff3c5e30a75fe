package routechat

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
)

// silenceTimeout is the time without a response after which Follow takes a call for broken. The server sends a response at least every
// 20 seconds.
const silenceTimeout = 45 * time.Second

var (
	errSilent = connect.NewError(connect.CodeUnavailable, errors.New("the server has sent nothing for "+silenceTimeout.String()))
	errEnded  = connect.NewError(connect.CodeUnavailable, errors.New("the server has ended the stream"))
)

// An Event is a step of [Client.Follow]. Any of its fields may be empty. They are in the order in which they count: a
// reset comes before the notes of the same event, and current after them.
type Event struct {
	// Lost is the error of a call that broke. The next call begins after RetryAfter, and Current says when it has caught up.
	Lost       error
	RetryAfter time.Duration

	// Reset means that the server could not continue where it was: notes may be missing. It starts again with the newest
	// notes of each location, which may have been there before. What was heard until now is to be discarded.
	Reset bool

	// Notes are new notes, those of one location in the order of their positions.
	Notes []*routeguidev1.Note

	// Current is set once after the start, after each lost call and after each reset: every note that was left before, and
	// that the request asks for, has been heard.
	Current bool

	// Cursor is where the notes have come to with this event: for a request that continues there, after a restart of the
	// client itself. It is empty if the server sent none.
	Cursor []byte
}

// Follow returns a sequence of the notes of a location or of a rectangle: the newest ones of each location, and then every
// note as it is left. It calls FollowNotes with the request, and again with the last cursor whenever a call breaks or is
// silent for 45 seconds, with exponential backoff and full jitter, from 0.5 to 20 s. A call that brings a new note or
// becomes current is progress, and resets the backoff.
//
// No note is missing, unless the server resets the sequence, and none comes twice. (The memory for this is bounded: a note
// could come twice after notes of 65,536 other locations.)
//
// The sequence ends only with an error, which is its last pair: when ctx ends, with DEADLINE_EXCEEDED or CANCELED, and the
// error of the last attempt in its chain if the connection is lost; and if no retry can mend it, with INVALID_ARGUMENT,
// UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED, the RESOURCE_EXHAUSTED of a rectangle that has too many locations for a
// snapshot, or the error of a server certificate that is not valid. It retries after any other error, also other
// RESOURCE_EXHAUSTED.
//
// No response is read while the caller handles an event. The server ends a call that is not read for its stall
// timeout, and Follow continues at the cursor. Each iteration over the sequence starts anew.
func (c *Client) Follow(ctx context.Context, request *routeguidev1.FollowNotesRequest) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		follower := follower{client: c, request: proto.CloneOf(request), yield: yield}
		var failed error // of the last call, unless it made progress or ctx ended it
		var backoff backoff
		for ctx.Err() == nil {
			progress, err := follower.call(ctx)
			if progress {
				failed, backoff.bound = nil, 0
			}
			switch {
			case err == nil:
				return // The caller has left the loop.
			case ctx.Err() != nil:
				yield(Event{}, ended(ctx, failed))
				return
			case slices.Contains(finalCodes, connect.CodeOf(err)) || isTooManyLocations(err) || invalidCertificate(err):
				yield(Event{}, err)
				return
			}
			failed = err
			delay := backoff.next()
			if !yield(Event{Lost: err, RetryAfter: delay}, nil) {
				return
			}
			sleep(ctx, delay)
		}
		yield(Event{}, ended(ctx, failed))
	}
}

// finalCodes are the codes of FollowNotes after which the contract says not to repeat the call, and that of a server without it.
var finalCodes = []connect.Code{
	connect.CodeInvalidArgument, connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeUnimplemented,
}

// isTooManyLocations returns whether the snapshot of a rectangle was refused for its size.
func isTooManyLocations(err error) bool {
	coded, ok := errors.AsType[*connect.Error](err)
	return ok && slices.ContainsFunc(coded.Details(), func(detail *connect.ErrorDetail) bool {
		message, err := detail.Value()
		info, ok := message.(*errdetails.ErrorInfo)
		return err == nil && ok && info.GetReason() == "TOO_MANY_LOCATIONS"
	})
}

// A follower is an iteration of Follow.
type follower struct {
	client  *Client
	request *routeguidev1.FollowNotesRequest // with the last cursor
	heard   positions
	started bool // there was a response
	yield   func(Event, error) bool
}

// call makes one call and yields what it brings. It returns nil only if the caller has left the loop.
func (f *follower) call(ctx context.Context) (progress bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	silence := time.AfterFunc(silenceTimeout, func() { cancel(errSilent) })
	defer silence.Stop()
	stream, err := f.client.FollowNotes(ctx, f.request)
	if err != nil {
		cancel(nil)
		return false, cause(ctx, err)
	}
	defer func() {
		cancel(nil) // Otherwise Close waits for the end of the stream.
		_ = stream.Close()
	}()
	// Without a cursor, this call begins with the newest notes, and those before them may be missing.
	reset := f.started && len(f.request.GetCursor()) == 0
	for stream.Receive() {
		silence.Stop() // The time that the caller takes is not the server's.
		f.started = true
		event := f.event(stream.Msg(), reset)
		reset = false
		if !f.yield(event, nil) {
			return progress, nil
		}
		progress = progress || event.Current || len(event.Notes) > 0
		if len(event.Cursor) > 0 {
			f.request.Cursor = event.Cursor
		}
		silence.Reset(silenceTimeout)
	}
	if err := stream.Err(); err != nil {
		return progress, cause(ctx, err)
	}
	return progress, errEnded
}

// cause returns errSilent if that is why a call with this context failed, and err otherwise.
func cause(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

// event returns a response as an event, without notes that come twice, and with a reset if there is one besides that of the
// response.
func (f *follower) event(response *routeguidev1.FollowNotesResponse, reset bool) Event {
	reset = reset || response.GetReset_()
	if reset {
		f.heard = positions{}
	}
	return Event{
		Reset:   reset,
		Notes:   slices.DeleteFunc(response.GetNotes(), func(note *routeguidev1.Note) bool { return !f.heard.advance(note) }),
		Current: response.GetCurrent(),
		Cursor:  response.GetCursor(),
	}
}

// A location is one of a note, in E7 degrees.
type location struct{ latitude, longitude int32 }

// maxRecent is the number of locations in a generation of positions.
const maxRecent = 1 << 16

// positions is a cache of the last position heard at each location, in two generations: when the recent one is full, the
// older one is dropped. The zero value is empty.
type positions struct {
	recent, older map[location]uint64
}

// advance records the position of a note, and returns false if the note has come before. Positions grow along the log of a
// location.
func (p *positions) advance(note *routeguidev1.Note) bool {
	at := location{note.GetLocation().GetLatitude(), note.GetLocation().GetLongitude()}
	last, known := p.recent[at]
	if !known {
		last, known = p.older[at]
	}
	if known && note.GetPosition() <= last {
		return false
	}
	if p.recent == nil || len(p.recent) == maxRecent {
		p.recent, p.older = make(map[location]uint64), p.recent
	}
	p.recent[at] = note.GetPosition()
	return true
}
