package service

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/server/wire"
)

var errDraining = connect.NewError(connect.CodeUnavailable, errors.New("server is shutting down (retry, possibly on another server)"))

var errMaxAge = connect.NewError(connect.CodeUnavailable, errors.New("maximum age reached (call again)"))

var errDeadline = connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)

// drain is an interceptor for graceful shutdown. It tracks open streams, refuses new calls other than health
// checks, and stops the reading of streams.
//
// It also enforces deadlines of streams and the maximum age of chats. Connect only cancels the handler's context,
// and a handler that blocks in Receive does not see that.
type drain struct {
	maxChatAge    time.Duration // 0 is no limit
	panics        *panics
	liftRateLimit sync.Once

	mu       sync.Mutex // guards the fields below
	draining bool
	streams  map[*openStream]struct{}
	drained  chan struct{} // closed once draining, with no stream open
}

// openStream is a stream in flight. Its reading is stopped at most once, and never after its handler has
// returned.
type openStream struct {
	ctx           context.Context //nolint:containedctx // An openStream lives as long as its call.
	cancel        context.CancelCauseFunc
	spec          connect.Spec
	requestHeader http.Header
}

func newDrain(maxChatAge time.Duration, panics *panics) *drain {
	return &drain{maxChatAge: maxChatAge, panics: panics, streams: make(map[*openStream]struct{}), drained: make(chan struct{})}
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
	return func(ctx context.Context, conn connect.StreamingHandlerConn) (err error) {
		stream := d.begin(ctx, conn)
		if stream == nil {
			return errDraining
		}
		defer d.end(stream, &err)
		return next(stream.ctx, conn)
	}
}

// begin registers a stream. It returns nil if the call must be refused.
func (d *drain) begin(ctx context.Context, conn connect.StreamingHandlerConn) *openStream {
	stream := &openStream{ctx: ctx, cancel: func(error) {}, spec: conn.Spec(), requestHeader: conn.RequestHeader()}
	if stream.spec.StreamType == connect.StreamTypeServer {
		// Such a handler does not read, so cancel its context. Health's Watch blocks until then, and returns
		// no error.
		stream.ctx, stream.cancel = context.WithCancelCause(ctx)
		if d.maxChatAge > 0 && stream.spec.Procedure == routeguidev1connect.NoteServiceFollowNotesProcedure {
			cancel := stream.cancel
			aging := time.AfterFunc(d.maxChatAge, func() { cancel(errMaxAge) })
			stream.cancel = func(cause error) {
				aging.Stop()
				cancel(cause)
			}
		}
	} else if deadline, ok := ctx.Deadline(); ok {
		stopReadingAt(ctx, deadline, errDeadline)
	}
	if d.maxChatAge > 0 && stream.spec.Procedure == routeguideconnect.RouteGuideRouteChatProcedure {
		stopReadingAt(ctx, time.Now().Add(d.maxChatAge), errMaxAge)
	}
	// Register last: the deadlines above must not replace that of a drain.
	if !d.add(stream) {
		stream.cancel(nil)
		return nil
	}
	return stream
}

// end is the inverse of begin. It is deferred: it turns a panic of the handler into an error, as [connect.WithRecover] does, which has a frame on the
// stack of every stream that waits. It replaces the error of the handler by that for the client.
func (d *drain) end(stream *openStream, err *error) {
	if value := recover(); value != nil {
		if value == http.ErrAbortHandler { //nolint:errorlint,err113 // net/http panics with this very value.
			panic(value)
		}
		*err = d.panics.recover(stream.ctx, stream.spec, stream.requestHeader, value)
	}
	switch {
	case errors.Is(context.Cause(stream.ctx), errDraining) && (*err != nil || isHealth(stream.spec.Procedure)):
		*err = errDraining
	case *err == nil:
		*err = clientGone(stream.ctx)
	}
	d.remove(stream)
	stream.cancel(nil)
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
