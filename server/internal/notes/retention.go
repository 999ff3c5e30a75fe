package notes

import (
	"context"
	"log/slog"
	"time"
)

const (
	// Retain calls Forget ten times within the retention, at an interval between a second and an hour.
	checksPerRetention = 10
	minCheckInterval   = time.Second
	maxCheckInterval   = time.Hour
)

// Retain periodically forgets the notes that are older than the retention, until ctx ends. It spares the
// notes from the time on that oldestPending returns for the current time: their replies are pending.
func Retain(ctx context.Context, store Store, retention time.Duration, oldestPending func(now int64) int64, logger *slog.Logger) {
	ticker := time.NewTicker(min(max(retention/checksPerRetention, minCheckInterval), maxCheckInterval))
	defer ticker.Stop()
	for {
		now := Now()
		count, err := store.Forget(ctx, min(now-retention.Nanoseconds(), oldestPending(now)))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			logger.WarnContext(ctx, "forgetting old notes failed (will retry)", "err", err)
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
