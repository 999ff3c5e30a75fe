package service

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
)

// codes is the one table from errors to codes, but for those that have a code, which are Connect's
// own, and for the end of the call's context, see [contextCode].
var codes = []struct {
	err  error
	code connect.Code
	// ofStore marks errors whose texts say what only whoever runs the server should know. A client
	// is told err, and the log has the whole.
	ofStore bool
}{
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

// contextCode returns the code for err if err is the end of the call's own context. An error of the
// store may wrap context.DeadlineExceeded, too: the store's deadline is not the client's.
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

// isStoreError returns whether err, which a call has ended with, is a fault of the store or of the server: a
// client is told only its kind.
func isStoreError(ctx context.Context, err error) bool {
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
	_, ended := contextCode(ctx, err)
	return !invalid && !panicked && !ended
}

func hasCode(err error) bool {
	_, ok := errors.AsType[*connect.Error](err)
	return ok
}

// code returns the name of the code that err will have for the client.
func code(ctx context.Context, err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(coded(ctx, err)).String()
}

// coded returns err, which a call has ended with, as the client will see it.
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
