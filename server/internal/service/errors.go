package service

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
	"example.com/routeguide/server/wire"
)

// codes is the table from errors to codes. It does not have Connect's own errors, which carry a code, nor the
// end of the call's context, see [contextCode].
var codes = []struct {
	err  error
	code connect.Code
	// storeFault marks errors whose text may have internal details. The client gets the text of err only, and the
	// log the full error.
	storeFault bool
}{
	{chat.ErrMalformed, connect.CodeInvalidArgument, false},
	{chat.ErrTooManyPending, connect.CodeResourceExhausted, false},
	{chat.ErrTooFast, connect.CodeResourceExhausted, false},
	{wire.ErrStalled, connect.CodeAborted, false},
	{chat.ErrForgotten, connect.CodeAborted, false},
	{live.ErrOvertaken, connect.CodeAborted, false},
	{live.ErrTooManyFollowed, connect.CodeResourceExhausted, false},
	{live.ErrTooManyLocations, connect.CodeResourceExhausted, false},
	{notes.ErrIDTaken, connect.CodeAlreadyExists, false},
	// ErrUnknown comes before ErrUnavailable: an error may wrap both, if one note was not kept and others may
	// have been.
	{notes.ErrUnknown, connect.CodeUnknown, true},
	{notes.ErrClosed, connect.CodeUnavailable, true},
	{notes.ErrUnavailable, connect.CodeUnavailable, true},
	{notes.ErrNoRoom, connect.CodeResourceExhausted, true},
	{notes.ErrDamaged, connect.CodeDataLoss, true},
}

var errInternal = errors.New("internal error (see the server's log)")

// contextCode returns the code of err if err is the end of the call's own context. An error of the store may wrap
// context.DeadlineExceeded, too, but for the store's deadline, not the client's.
func contextCode(ctx context.Context, err error) (connect.Code, bool) {
	ended := ctx.Err()
	if ended == nil || !errors.Is(err, ended) && !errors.Is(err, context.Cause(ctx)) {
		return 0, false
	}
	if errors.Is(ended, context.DeadlineExceeded) {
		return connect.CodeDeadlineExceeded, true
	}
	return connect.CodeCanceled, true
}

// isStoreError reports whether the error that ended a call is a fault of the store or of the server. The client
// gets its kind only, without details.
func isStoreError(ctx context.Context, err error) bool {
	if err == nil || hasCode(err) {
		return false
	}
	for _, known := range codes {
		if errors.Is(err, known.err) {
			return known.storeFault
		}
	}
	_, invalid := errors.AsType[*validate.Error](err)
	_, panicked := errors.AsType[*chat.PanicError](err)
	_, ended := contextCode(ctx, err)
	return !invalid && !panicked && !ended
}

func hasCode(err error) bool {
	_, ok := errors.AsType[*connect.Error](err)
	return ok
}

// code returns the name of the code that the client gets for err, or "ok".
func code(ctx context.Context, err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(coded(ctx, err)).String()
}

// coded returns the error for the client, with a code, of a call that ended with err.
func coded(ctx context.Context, err error) error {
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
	if code, ok := contextCode(ctx, err); ok {
		return connect.NewError(code, ctx.Err())
	}
	return connect.NewError(connect.CodeInternal, errInternal)
}

// invalidArgument returns an INVALID_ARGUMENT error that names the invalid field in its text and in a
// BadRequest detail.
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
