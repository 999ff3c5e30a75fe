package service

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"example.com/routeguide/server/chat"
	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/validate"
)

// codes is the one table from errors to codes, but for those that have a code, which are Connect's
// own.
var codes = []struct {
	err  error
	code connect.Code
	// ofStore marks errors whose texts say what only whoever runs the server should know. A client
	// is told err, and the log has the whole.
	ofStore bool
}{
	{context.Canceled, connect.CodeCanceled, false},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded, false},
	{chat.ErrMalformed, connect.CodeInvalidArgument, false},
	{chat.ErrTooManyPending, connect.CodeResourceExhausted, false},
	{chat.ErrStalled, connect.CodeAborted, false},
	{chat.ErrForgotten, connect.CodeAborted, false},
	// This one first: an error may say that a note was not kept, and that others may have been.
	{notes.ErrUnknown, connect.CodeUnknown, true},
	{notes.ErrClosed, connect.CodeUnavailable, true},
	{notes.ErrUnavailable, connect.CodeUnavailable, true},
	{notes.ErrNoRoom, connect.CodeResourceExhausted, true},
	{notes.ErrDamaged, connect.CodeDataLoss, true},
}

var errInternal = errors.New("something went wrong in the server, whose log says more")

// isStores returns whether err is one that a client is told only the kind of.
func isStores(err error) bool {
	if err == nil || hasCode(err) {
		return false
	}
	for _, known := range codes {
		if errors.Is(err, known.err) {
			return known.ofStore
		}
	}
	_, invalid := errors.AsType[*validate.Error](err)
	_, panicked := errors.AsType[*chat.PanicError](err)
	return !invalid && !panicked
}

func hasCode(err error) bool {
	_, ok := errors.AsType[*connect.Error](err)
	return ok
}

// code returns the name of the code that err will have for the client.
func code(err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(coded(err)).String()
}

// coded returns err as the client will see it.
func coded(err error) error {
	if err == nil || hasCode(err) {
		return err
	}
	if invalid, ok := errors.AsType[*validate.Error](err); ok {
		return invalidArgument(invalid)
	}
	for _, known := range codes {
		if errors.Is(err, known.err) {
			return connect.NewError(known.code, known.err)
		}
	}
	return connect.NewError(connect.CodeInternal, errInternal)
}

// invalidArgument returns an error that names the field to blame, in its text and in a detail.
func invalidArgument(invalid *validate.Error) error {
	coded := connect.NewError(connect.CodeInvalidArgument, invalid)
	detail, err := connect.NewErrorDetail(&errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{
			Field:       invalid.Field,
			Description: invalid.Rule,
		}},
	})
	if err == nil {
		coded.AddDetail(detail)
	}
	return coded
}
