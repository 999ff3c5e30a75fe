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

var errDraining = connect.NewError(connect.CodeUnavailable, errors.New("the server is shutting down: try again, perhaps elsewhere"))

var errMaxAge = connect.NewError(connect.CodeUnavailable, errors.New("the chat has lasted for as long as this server allows: begin another one"))

var errDeadline = connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)

// drain is an interceptor that can end every call: it refuses new ones, but for questions about
// health, and stops the reading of streams.
//
// It is also what ends the reading of a stream whose deadline has passed: Connect tells the
// handler's context only, and a handler that waits for the client does not look at that.
type drain struct {
	chatLife time.Duration // is how long a RouteChat may last; 0 is for ever
	hurry    sync.Once

	mu       sync.Mutex // guards the rest
	draining bool
	streams  map[*drainable]struct{}
	empty    chan struct{} // is closed once no stream is open, and none will be
}

// drainable is an open stream. It is told to stop at most once, and never after its handler has
// returned.
type drainable struct {
	ctx    context.Context //nolint:containedctx // It stands for a call, and this is that call's.
	cancel context.CancelCauseFunc
}

func newDrain(chatLife time.Duration) *drain {
	return &drain{chatLife: chatLife, streams: make(map[*drainable]struct{}), empty: make(chan struct{})}
}

// refuse makes the interceptor refuse new calls.
func (d *drain) refuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.draining && len(d.streams) == 0 {
		close(d.empty)
	}
	d.draining = true
}

// stop ends the streams that are open. No more can have been added since refuse.
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

// add returns false if the call must be refused.
func (d *drain) add(stream *drainable) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining {
		return false
	}
	d.streams[stream] = struct{}{}
	return true
}

func (d *drain) remove(stream *drainable) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.streams, stream)
	if d.draining && len(d.streams) == 0 {
		close(d.empty)
	}
}

func (d *drain) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		if d.isDraining() && !isHealth(request.Spec().Procedure) {
			return nil, errDraining
		}
		response, err := next(ctx, request)
		if gone := gone(ctx); err == nil && gone != nil {
			return nil, gone
		}
		return response, err
	}
}

func (d *drain) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		stream := &drainable{ctx: ctx, cancel: func(error) {}}
		if conn.Spec().StreamType == connect.StreamTypeServer {
			// The client has said all it has to say. Of these handlers, health's Watch waits for the end of its
			// context, and returns no error then.
			ctx, stream.cancel = context.WithCancelCause(ctx)
			defer stream.cancel(nil)
		} else if deadline, ok := ctx.Deadline(); ok {
			stopReadingAt(ctx, deadline, errDeadline)
		}
		if d.chatLife > 0 && conn.Spec().Procedure == routeguideconnect.RouteGuideRouteChatProcedure {
			stopReadingAt(ctx, time.Now().Add(d.chatLife), errMaxAge)
		}
		// Only now, so that the deadline does not take the place of that of a drain.
		if !d.add(stream) {
			return errDraining
		}
		defer d.remove(stream)
		err := next(ctx, conn)
		switch {
		case errors.Is(context.Cause(ctx), errDraining) && (err != nil || isHealth(conn.Spec().Procedure)):
			return errDraining
		case err == nil:
			return gone(ctx)
		default:
			return err
		}
	}
}

// gone returns an error if the response of the call that ctx belongs to cannot reach its client any more. A proxy that
// ends a call for its client may close the client's side in order before it resets the stream, so that a handler sees
// nothing wrong.
func gone(ctx context.Context) error {
	if stream, ok := wire.FromContext(ctx); ok {
		return canceled(stream.Gone())
	}
	return nil
}

// canceled returns an error of package wire, which may be nil, with its code.
func canceled(err error) error {
	if err == nil {
		return nil
	}
	return connect.NewError(connect.CodeCanceled, err)
}

func (d *drain) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// stopReading ends the reading of the stream that ctx belongs to with cause.
func stopReading(ctx context.Context, cause error) {
	if stream, ok := wire.FromContext(ctx); ok {
		// An error says that the connection has no read deadlines; then the stream ends when
		// the client has sent something, or when the connection is closed.
		_ = stream.StopReading(cause)
	}
}

// stopReadingAt ends the reading of the stream that ctx belongs to at some time to come.
func stopReadingAt(ctx context.Context, deadline time.Time, cause error) {
	if stream, ok := wire.FromContext(ctx); ok {
		_ = stream.StopReadingAt(deadline, cause) // As in stopReading.
	}
}
