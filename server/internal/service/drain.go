package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/wire"
)

var errDraining = connect.NewError(connect.CodeUnavailable, errors.New("server is shutting down (retry, possibly on another server)"))

var errMaxAge = connect.NewError(connect.CodeUnavailable, errors.New("chat ended: maximum age reached (open a new chat)"))

var errDeadline = connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)

// drain is an interceptor for graceful shutdown. It tracks open streams, refuses new calls other than health
// checks, and stops the reading of streams.
//
// It also enforces deadlines of streams and the maximum age of chats. Connect only cancels the handler's context,
// and a handler that blocks in Receive does not see that.
type drain struct {
	maxChatAge    time.Duration // 0 is no limit
	liftRateLimit sync.Once

	mu       sync.Mutex // guards the fields below
	draining bool
	streams  map[*openStream]struct{}
	drained  chan struct{} // closed once draining, with no stream open
}

// openStream is a stream in flight. Its reading is stopped at most once, and never after its handler has
// returned.
type openStream struct {
	ctx    context.Context //nolint:containedctx // An openStream lives as long as its call.
	cancel context.CancelCauseFunc
}

func newDrain(maxChatAge time.Duration) *drain {
	return &drain{maxChatAge: maxChatAge, streams: make(map[*openStream]struct{}), drained: make(chan struct{})}
}

// refuse starts the drain: new calls are refused.
func (d *drain) refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.draining && len(d.streams) == 0 {
		close(d.drained)
	}
	d.draining = true
}

// stop stops all open streams. It must be called after refuse, so that no stream can be added.
func (d *drain) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for stream := range d.streams {
		stopReading(stream.ctx, errDraining)
		stream.cancel(errDraining)
	}
}

func (d *drain) isDraining() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.draining
}

// add registers a stream. It returns false if the call must be refused.
func (d *drain) add(stream *openStream) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining {
		return false
	}
	d.streams[stream] = struct{}{}
	return true
}

func (d *drain) remove(stream *openStream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.streams, stream)
	if d.draining && len(d.streams) == 0 {
		close(d.drained)
	}
}

func (d *drain) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		if d.isDraining() && !isHealth(request.Spec().Procedure) {
			return nil, errDraining
		}
		response, err := next(ctx, request)
		if gone := clientGone(ctx); err == nil && gone != nil {
			return nil, gone
		}
		return response, err
	}
}

func (d *drain) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		stream := &openStream{ctx: ctx, cancel: func(error) {}}
		if conn.Spec().StreamType == connect.StreamTypeServer {
			// Such a handler does not read, so cancel its context. Health's Watch blocks until then, and returns
			// no error.
			ctx, stream.cancel = context.WithCancelCause(ctx)
			defer stream.cancel(nil)
		} else if deadline, ok := ctx.Deadline(); ok {
			stopReadingAt(ctx, deadline, errDeadline)
		}
		if d.maxChatAge > 0 && conn.Spec().Procedure == routeguideconnect.RouteGuideRouteChatProcedure {
			stopReadingAt(ctx, time.Now().Add(d.maxChatAge), errMaxAge)
		}
		// Register last: the deadlines above must not replace that of a drain.
		if !d.add(stream) {
			return errDraining
		}
		defer d.remove(stream)
		err := next(ctx, conn)
		switch {
		case errors.Is(context.Cause(ctx), errDraining) && (err != nil || isHealth(conn.Spec().Procedure)):
			return errDraining
		case err == nil:
			return clientGone(ctx)
		default:
			return err
		}
	}
}

func (d *drain) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// stopReading stops the reading of the stream in ctx with cause.
func stopReading(ctx context.Context, cause error) {
	if stream, ok := wire.FromContext(ctx); ok {
		// It fails if the connection does not support read deadlines. Then the stream ends when the client
		// sends something, or when the connection is closed.
		_ = stream.StopReading(cause)
	}
}

// stopReadingAt is stopReading at a deadline.
func stopReadingAt(ctx context.Context, deadline time.Time, cause error) {
	if stream, ok := wire.FromContext(ctx); ok {
		_ = stream.StopReadingAt(deadline, cause) // As in stopReading.
	}
}
