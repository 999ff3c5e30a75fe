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

// notStored are the prefixes of the errors by which Redis says that it did not run a script, and what
// they are in the terms of the contract.
var notStored = []struct {
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
}

// writeError returns an error of a write in the terms of the contract: that the note was not kept
// only if that is certain.
func writeError(err error) error {
	if known := refused(err); known != nil {
		return known
	}
	return fmt.Errorf("%w: %w", notes.ErrUnknown, err)
}

// readError returns an error of a read in the terms of the contract. The caller's own context may
// have ended, which is then the error.
func readError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if known := refused(err); known != nil {
		return known
	}
	return fmt.Errorf("%w: %w", notes.ErrUnavailable, err)
}

// refused returns the error for something that Redis has refused, or that never got to it; and nil
// for one that says neither.
func refused(err error) error {
	if reply, ok := rueidis.IsRedisErr(err); ok {
		// An error inside of a script names the script behind the error that it is.
		for _, known := range notStored {
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

// isTimeout returns whether err says that Redis did not answer in time. The context of the call cannot tell: the client
// sets deadlines of its own, which may pass a moment before.
func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}
