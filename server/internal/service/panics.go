package service

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"

	"connectrpc.com/connect"
)

// panics turns panics of handlers into errors, and counts and logs them.
type panics struct {
	logger *slog.Logger
	count  atomic.Int64 // number of panics so far
}

// recover is the callback for [connect.WithRecover].
func (p *panics) recover(ctx context.Context, spec connect.Spec, _ http.Header, value any) error {
	p.record(ctx, spec.Procedure, value, debug.Stack())
	return connect.NewError(connect.CodeInternal, errInternal)
}

func (p *panics) record(ctx context.Context, procedure string, value any, stack []byte) {
	p.count.Add(1)
	p.logger.ErrorContext(ctx, "panic in a call", "procedure", procedure, "panic", value, "stack", string(stack))
}
