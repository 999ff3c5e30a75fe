package notes

import (
	"context"
	"log/slog"
	"time"
)

const (
	// Retain looks for old notes ten times within the time for which they are kept, but not more
	// often than once a second, nor more seldom than once an hour.
	retainPart  = 10
	retainLeast = time.Second
	retainMost  = time.Hour
)

// Retain forgets what is older than keep, again and again, until ctx ends. It spares the notes from
// oldestPending's time on, which is given the current time: those still wait for their replies.
func Retain(ctx context.Context, store Store, keep time.Duration, oldestPending func(now int64) int64, logger *slog.Logger) {
	ticker := time.NewTicker(min(max(keep/retainPart, retainLeast), retainMost))
	defer ticker.Stop()
	for {
		now := Now()
		count, err := store.Forget(ctx, min(now-keep.Nanoseconds(), oldestPending(now)))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			logger.WarnContext(ctx, "old notes could not all be forgotten, which is tried again", "err", err)
		case count > 0:
			logger.DebugContext(ctx, "forgot old notes", "notes", count)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
