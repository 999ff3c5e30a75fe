package service

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/validate"
)

// codeOf is the one table from errors to codes. It does not see errors that have a code, which
// are Connect's own.
func codeOf(err error) connect.Code {
	if _, ok := errors.AsType[*validate.Error](err); ok {
		return connect.CodeInvalidArgument
	}
	switch {
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	case errors.Is(err, notes.ErrClosed):
		return connect.CodeUnavailable
	default:
		return connect.CodeInternal
	}
}

// coded returns err as the client will see it.
func coded(err error) error {
	if _, already := errors.AsType[*connect.Error](err); already || err == nil {
		return err
	}
	coded := connect.NewError(codeOf(err), err)
	if invalid, ok := errors.AsType[*validate.Error](err); ok {
		detail, err := connect.NewErrorDetail(&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{
				Field:       invalid.Field,
				Description: invalid.Rule,
			}},
		})
		if err == nil {
			coded.AddDetail(detail)
		}
	}
	return coded
}
