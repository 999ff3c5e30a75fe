package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
	"example.com/routeguide/server/wire"
)

// coded maps each error to one code, and isStoreError says whether the store is at fault.
func TestCodedAndIsStoreErrorOfEachError(t *testing.T) {
	t.Parallel()
	open := context.Background()
	cancelled, cancel := context.WithCancel(open)
	cancel()
	expired, cancelExpired := context.WithTimeout(open, 0)
	defer cancelExpired()
	cause := errors.New("the cause")
	caused, cancelCaused := context.WithCancelCause(open)
	cancelCaused(cause)
	for _, test := range []struct {
		ctx   context.Context //nolint:containedctx // An input of the test case.
		err   error
		want  connect.Code
		store bool
	}{
		{open, fmt.Errorf("%w: %w", notes.ErrUnknown, context.DeadlineExceeded), connect.CodeUnknown, true},
		{open, fmt.Errorf("%w, or those after it: %w", notes.ErrUnknown, notes.ErrUnavailable), connect.CodeUnknown, true},
		{open, fmt.Errorf("%w: %w", notes.ErrUnavailable, context.DeadlineExceeded), connect.CodeUnavailable, true},
		{open, fmt.Errorf("%w: %w", notes.ErrUnavailable, context.Canceled), connect.CodeUnavailable, true},
		{open, fmt.Errorf("%w: full", notes.ErrNoRoom), connect.CodeResourceExhausted, true},
		{open, notes.ErrClosed, connect.CodeUnavailable, true},
		{open, fmt.Errorf("%w: a file", notes.ErrDamaged), connect.CodeDataLoss, true},
		// A context error is the client's only if the call's own context has ended.
		{open, context.DeadlineExceeded, connect.CodeInternal, true},
		{open, context.Canceled, connect.CodeInternal, true},
		{open, io.ErrUnexpectedEOF, connect.CodeInternal, true},
		{cancelled, context.Canceled, connect.CodeCanceled, false},
		{cancelled, context.DeadlineExceeded, connect.CodeInternal, true},
		{expired, fmt.Errorf("read: %w", context.DeadlineExceeded), connect.CodeDeadlineExceeded, false},
		{caused, cause, connect.CodeCanceled, false},
		{cancelled, fmt.Errorf("%w: %w", notes.ErrUnknown, context.Canceled), connect.CodeUnknown, true},
		{open, wire.ErrStalled, connect.CodeAborted, false},
		{open, chat.ErrForgotten, connect.CodeAborted, false},
		{open, chat.ErrTooManyPending, connect.CodeResourceExhausted, false},
		{open, fmt.Errorf("%w: x", chat.ErrMalformed), connect.CodeInvalidArgument, false},
		{open, &chat.PanicError{Value: 1}, connect.CodeInternal, false},
		{open, &validate.Error{Field: "location", Rule: "must be set"}, connect.CodeInvalidArgument, false},
		{open, connect.NewError(connect.CodeAborted, io.EOF), connect.CodeAborted, false},
	} {
		if got := connect.CodeOf(coded(test.ctx, test.err)); got != test.want {
			t.Errorf("%v, with a context that has ended with %v: got the code %v, want %v", test.err, test.ctx.Err(), got, test.want)
		}
		if got := isStoreError(test.ctx, test.err); got != test.store {
			t.Errorf("%v, with a context that has ended with %v: isStoreError returns %v", test.err, test.ctx.Err(), got)
		}
	}
}
