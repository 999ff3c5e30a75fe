package service

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
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
	// reason is that of an ErrorInfo detail, for clients that must tell this error from others with its code; empty is no detail.
	reason string
}{
	{err: chat.ErrMalformed, code: connect.CodeInvalidArgument},
	{err: chat.ErrTooManyPending, code: connect.CodeResourceExhausted},
	{err: chat.ErrTooFast, code: connect.CodeResourceExhausted},
	{err: wire.ErrStalled, code: connect.CodeAborted},
	{err: chat.ErrForgotten, code: connect.CodeAborted},
	{err: live.ErrOvertaken, code: connect.CodeAborted},
	{err: live.ErrTooManyFollowed, code: connect.CodeResourceExhausted},
	{err: live.ErrTooManyLocations, code: connect.CodeResourceExhausted, reason: "TOO_MANY_LOCATIONS"},
	{err: notes.ErrIDTaken, code: connect.CodeAlreadyExists},
	// ErrUnknown comes before ErrUnavailable: an error may wrap both, if one note was not kept and others may
	// have been.
	{err: notes.ErrUnknown, code: connect.CodeUnknown, storeFault: true},
	{err: notes.ErrClosed, code: connect.CodeUnavailable, storeFault: true},
	{err: notes.ErrUnavailable, code: connect.CodeUnavailable, storeFault: true},
	{err: notes.ErrNoRoom, code: connect.CodeResourceExhausted, storeFault: true},
	{err: notes.ErrDamaged, code: connect.CodeDataLoss, storeFault: true},
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
			coded := connect.NewError(known.code, known.err)
			if known.reason != "" {
				addDetail(coded, &errdetails.ErrorInfo{Reason: known.reason, Domain: routeguidev1connect.NoteServiceName})
			}
			return coded
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
	addDetail(coded, &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{
			Field:       invalid.Field,
			Description: invalid.Rule,
		}},
	})
	return coded
}

func addDetail(coded *connect.Error, message proto.Message) {
	if detail, err := connect.NewErrorDetail(message); err == nil {
		coded.AddDetail(detail)
	}
}
