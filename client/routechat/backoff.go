package routechat

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"connectrpc.com/connect"
)

const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 20 * time.Second
)

// backoff is exponential backoff with full jitter: the delay before a retry is random, between 0 and a bound that doubles
// from minBackoff to maxBackoff. The zero value is ready to use, and the start after progress.
type backoff struct{ bound time.Duration }

// next returns the delay before the next retry.
func (b *backoff) next() time.Duration {
	b.bound = min(max(2*b.bound, minBackoff), maxBackoff)
	return mathrand.N(b.bound) //nolint:gosec // Jitter is no secret.
}

// sleep waits for a delay, or until ctx ends.
func sleep(ctx context.Context, delay time.Duration) {
	select {
	case <-time.After(delay):
	case <-ctx.Done():
	}
}

// ended returns the error of a call whose context has ended. Failed is the error of its last attempt, or nil if that was
// its first one.
func ended(ctx context.Context, failed error) error {
	code := connect.CodeCanceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = connect.CodeDeadlineExceeded
	}
	if failed == nil {
		return connect.NewError(code, ctx.Err())
	}
	return connect.NewError(code, fmt.Errorf("%w, after an attempt failed with: %w", ctx.Err(), failed))
}
