package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
)

// refusals maps prefixes of Redis errors to errors of [notes.Store]. With these, Redis certainly did not run
// the script, or that did nothing.
var refusals = []struct {
	prefix string
	err    error
}{
	{"OOM", notes.ErrNoRoom},
	{"WRONGTYPE", notes.ErrDamaged},
	{"MOVED", notes.ErrUnavailable},
	{"ASK", notes.ErrUnavailable},
	{"TRYAGAIN", notes.ErrUnavailable},
	{"CLUSTERDOWN", notes.ErrUnavailable},
	{"LOADING", notes.ErrUnavailable},
	{"MASTERDOWN", notes.ErrUnavailable},
	{"READONLY", notes.ErrUnavailable},
	{"NOREPLICAS", notes.ErrUnavailable},
	{"MISCONF", notes.ErrUnavailable},
	{"BUSY", notes.ErrUnavailable},
	{"NOAUTH", notes.ErrUnavailable},
	{"WRONGPASS", notes.ErrUnavailable},
	{"NOPERM", notes.ErrUnavailable},
	{"The user executing the script can't run this command", notes.ErrUnavailable}, // a read: permissions to write are checked first
	{lineageCode, notes.ErrUnavailable},
	{lostCode, notes.ErrUnavailable},
}

// The codes of the errors of appendScript: the partition has another lineage, which follows, or has lost the last
// batch that this server knows.
const (
	lineageCode = "LINEAGE "
	lostCode    = "LOST "
)

// writeError maps an error of a write to one of [notes.Store]: to [notes.ErrUnknown] unless the note was
// certainly not kept.
func writeError(err error) error {
	known := refused(err)
	if known == nil {
		return fmt.Errorf("%w: %w", notes.ErrUnknown, err)
	}
	if errors.Is(known, notes.ErrDamaged) {
		return fmt.Errorf("%w: %w", notes.ErrUnknown, known) // Other notes of the batch may be kept.
	}
	return known
}

// readError maps an error of a read to one of [notes.Store]. If the caller's context has ended, it returns
// its cause.
func readError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if known := refused(err); known != nil {
		return known
	}
	return fmt.Errorf("%w: %w", notes.ErrUnavailable, err)
}

// refused maps an error of a call that had no effect, because Redis refused it or it was never sent. For any
// other error it returns nil.
func refused(err error) error {
	if reply, ok := rueidis.IsRedisErr(err); ok {
		// An error inside a script has a suffix that names the script.
		for _, known := range refusals {
			if strings.HasPrefix(strings.TrimPrefix(reply.Error(), "ERR "), known.prefix) {
				return fmt.Errorf("%w: %w", known.err, err)
			}
		}
		return nil
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return fmt.Errorf("%w: %w", notes.ErrUnavailable, err)
	}
	if errors.Is(err, rueidis.ErrNoSlot) || errors.Is(err, rueidis.ErrNoAddr) {
		return fmt.Errorf("%w: %w", notes.ErrUnavailable, err)
	}
	return nil
}

// isTimeout returns whether err is a timeout. The context of the call is no substitute: the client sets its
// own deadlines, which may pass a moment earlier.
func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
