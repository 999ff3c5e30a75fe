package service

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"

	"connectrpc.com/connect"
)

// panics makes an error of a panic in a handler, and counts and logs it.
type panics struct {
	logger *slog.Logger
	count  atomic.Int64
}

// recover is for [connect.WithRecover].
func (p *panics) recover(ctx context.Context, spec connect.Spec, _ http.Header, value any) error {
	p.note(ctx, spec.Procedure, value, debug.Stack())
	return connect.NewError(connect.CodeInternal, errInternal)
}

func (p *panics) note(ctx context.Context, procedure string, value any, stack []byte) {
	p.count.Add(1)
	p.logger.ErrorContext(ctx, "panic in a call", "procedure", procedure, "panic", value, "stack", string(stack))
}
