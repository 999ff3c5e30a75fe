package chat

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
)

// ErrTooFast is the error of a note beyond the rate of its client.
var ErrTooFast = errors.New("too many notes of this client in a short time (retry with exponential backoff)")

// Leave appends the note of a request, and returns it once it is as durable as the store promises; with an ID that
// the store knows, it returns the first note instead. If ctx ends before that, the note may still be kept. A limiter that is
// not nil is the token bucket for notes received. Leave does not wait for a token, because it could not hold up
// the client's next call: the error is [ErrTooFast].
func (s *Server) Leave(ctx context.Context, request *routeguidev1.LeaveNoteRequest, limiter *rate.Limiter) (*routeguidev1.Note, error) {
	if err := validate.LeaveNote(request, s.options.MaxText, notes.MaxID); err != nil {
		return nil, err
	}
	if limiter != nil && !limiter.Allow() {
		return nil, ErrTooFast
	}
	// Without the unknown fields of the request: a store compares the bytes of notes with the same ID.
	note := &routeguide.RouteNote{
		Location: &routeguide.Point{Latitude: request.GetLocation().GetLatitude(), Longitude: request.GetLocation().GetLongitude()},
		Message:  request.GetText(),
	}
	encoded, err := proto.Marshal(note)
	if err != nil {
		return nil, err
	}
	s.counts.received.Add(1)
	receipt, err := notes.Append(ctx, s.options.Store,
		notes.Location{Latitude: note.Location.Latitude, Longitude: note.Location.Longitude},
		notes.Note{Time: s.clock.now(), ID: request.GetId(), Encoded: encoded})
	if err != nil {
		return nil, err
	}
	return &routeguidev1.Note{
		Location:  note.Location,
		Text:      note.Message,
		Position:  uint64(receipt.Position),
		LeaveTime: timestamppb.New(time.Unix(0, receipt.Time)),
		Id:        request.GetId(),
	}, nil
}
