// Package service puts RouteGuide on HTTP: its four RPCs, health and reflection, over the Connect,
// gRPC and gRPC-Web protocols. The handlers are thin. Each makes a request into one call of the
// packages guide or chat, and an error into a code by the table in this package.
package service

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/clientlimit"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/validate"
	"example.com/routeguide/server/wire"
)

// compressMinBytes is how long a message must be to be compressed for a client that asks for it.
// Most notes and features are far shorter, and compressing them costs more than all the rest.
const compressMinBytes = 1 << 10

// shortBytes is how long a request message may be that is no note: a Point, a Rectangle, or the name of a
// service.
const shortBytes = 4 << 10

// A Service is RouteGuide as an HTTP handler. All of its methods may be called concurrently.
type Service struct {
	http.Handler

	chats  *chat.Server
	health *Health
	drain  *drain
	panics *panics
	quotas *quotas
	// storeErrors counts chats, and stalled calls.
	storeErrors, stalled atomic.Int64
}

// Options are what a [Service] needs to know. All but Chats may be left out; where it bounds something, 0 is
// no bound.
type Options struct {
	// Chats say where notes are kept, and bound what chats may take.
	Chats chat.Options
	// Health is what health checks report. Drain makes it NOT_SERVING. Without it, it is SERVING until then.
	Health *Health
	// NotesPerSecond is how many notes a client may leave in a second, after ten seconds' worth at once.
	// Clients are told apart by their addresses.
	NotesPerSecond float64
	// MaxChats is how many chats there may be at once, and MaxCalls how many other calls, and as many questions
	// about health.
	MaxChats, MaxCalls int
	// ClientShare is the part of MaxChats, MaxCalls and ArrivingBytes that one client may have, between 0 and 1.
	ClientShare float64
	// MessageBytes is how long a request message may be, when it is unpacked.
	MessageBytes int
	// ArrivingBytes is how much may have been begun to be sent of notes that are longer than 4 KiB, and have not
	// arrived.
	ArrivingBytes int
	// RequestTimeout is how long a request may take to arrive, and a message of a RouteChat. A RecordRoute may take
	// as long as it likes.
	RequestTimeout time.Duration
	// StallTimeout is how long a client may take to take 16 KiB of an answer that wait for it. What a chat
	// writes may take as long as Chats says.
	StallTimeout time.Duration
	// MaxChatAge is how long a chat may last. Then it gets the replies it is owed, and UNAVAILABLE.
	MaxChatAge time.Duration
	// Origins are the origins, such as https://example.com, whose pages may call unary and
	// server-streaming RPCs from a browser. * is any.
	Origins []string
	// Require is put around all RPCs, but within what explains errors: it says who may call.
	Require func(http.Handler) http.Handler
	// Interceptors are put around all RPCs.
	Interceptors []connect.Interceptor
	// Logger gets a line for each chat that has ended, and the causes of errors that a client is told only
	// the kind of. Without it, nothing is logged.
	Logger *slog.Logger
}

// New returns a service that knows the features of guide. It must be closed.
func New(guide *guide.Guide, options Options) *Service {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Health == nil {
		options.Health = NewHealth(options.Logger)
	}
	service := &Service{
		chats:  chat.NewServer(options.Chats),
		health: options.Health,
		drain:  newDrain(options.MaxChatAge),
		panics: &panics{logger: options.Logger},
		quotas: newQuotas(options),
	}
	handlerOptions := connect.WithHandlerOptions(
		connect.WithInterceptors(append(options.Interceptors, service.drain)...),
		connect.WithRecover(service.panics.recover),
		connect.WithCompressMinBytes(compressMinBytes),
		connect.WithReadMaxBytes(options.MessageBytes),
		withGzip(options.MessageBytes),
	)
	// All other messages than notes are short.
	short := connect.WithReadMaxBytes(shortBytes)
	reflector := grpcreflect.NewStaticReflector(
		routeguideconnect.RouteGuideName,
		grpchealth.HealthV1ServiceName,
		grpcreflect.ReflectV1ServiceName,
		grpcreflect.ReflectV1AlphaServiceName,
	)
	procedures := make(procedures)
	procedures.add(methodsOf(routeguide.File_routeguide_route_guide_proto.Services().ByName("RouteGuide"))...)(routeguideconnect.NewRouteGuideHandler(&handler{
		guide:  guide,
		chats:  service.chats,
		pace:   clientlimit.NewRateLimiters(options.NotesPerSecond),
		limits: messageLimits{bytes: options.MessageBytes, timeout: options.RequestTimeout, quotas: service.quotas},
		logger: options.Logger,
		panics: service.panics,
		failed: &service.storeErrors,
	}, handlerOptions, connect.WithConditionalHandlerOptions(func(spec connect.Spec) []connect.HandlerOption {
		if spec.Procedure == routeguideconnect.RouteGuideRouteChatProcedure {
			return nil
		}
		return []connect.HandlerOption{short}
	})))
	addHealth(procedures, service.health.checker, handlerOptions, short)
	procedures.add("ServerReflectionInfo")(grpcreflect.NewHandlerV1(reflector, handlerOptions, short))
	procedures.add("ServerReflectionInfo")(grpcreflect.NewHandlerV1Alpha(reflector, handlerOptions, short))
	inner := http.Handler(procedures)
	if options.Require != nil {
		inner = options.Require(inner)
	}
	allow := withCORS(options.Origins)
	written := func(next http.Handler) http.Handler {
		return withStallTimeout(options.StallTimeout, &service.stalled, allow(next))
	}
	inner = written(withRequestTimeout(options.RequestTimeout, explain(procedures, inner)))
	service.Handler = wire.NewHandler(service.quotas.admit(inner, written))
	return service
}

// Close ends what the service does by itself, once no calls are open.
func (s *Service) Close() {
	s.chats.Close()
}

// Counts returns what the chats have done so far.
func (s *Service) Counts() chat.Counts { return s.chats.Counts() }

// StoreErrors returns how many chats have ended with an error of the store.
func (s *Service) StoreErrors() int64 { return s.storeErrors.Load() }

// Calls returns how many calls are open that are no chats.
func (s *Service) Calls() int64 { return s.quotas.calls.InUse() + s.quotas.health.InUse() }

// Arriving returns how many bytes the notes have that are longer than 4 KiB and have arrived in part.
func (s *Service) Arriving() int64 { return s.quotas.arriving.InUse() }

// Refused returns how many calls, or long messages, were refused because there were too many at once.
func (s *Service) Refused() int64 { return s.quotas.refused.Load() }

// Stalled returns how many calls were reset because their clients did not take their answers, but for those chats
// that [chat.Counts] has.
func (s *Service) Stalled() int64 { return s.stalled.Load() }

// Panics returns how many calls have ended with a panic.
func (s *Service) Panics() int64 { return s.panics.count.Load() }

// OldestPending returns the time of the oldest note that still waits for its reply, or now, if that is
// older.
func (s *Service) OldestPending(now int64) int64 {
	return s.chats.OldestPending(now)
}

// Drain makes the service refuse new calls, with UNAVAILABLE, and end the streams that are open:
// what they have received is kept and answered, then they get UNAVAILABLE. It does not wait for
// them. Health says NOT_SERVING from then on.
func (s *Service) Drain() {
	s.drain.refuse()
	s.health.Leave()
	s.drain.hurry.Do(s.chats.LiftRateLimit)
	s.drain.stop()
}

// Drained returns a channel that is closed when every stream has ended, after Drain.
func (s *Service) Drained() <-chan struct{} {
	return s.drain.empty
}

// handler is the generated interface. Its methods return errors that [codeOf] knows.
type handler struct {
	guide  *guide.Guide
	chats  *chat.Server
	pace   *clientlimit.RateLimiters
	limits messageLimits
	logger *slog.Logger
	panics *panics
	failed *atomic.Int64 // counts chats that the store has failed
}

func (h *handler) GetFeature(ctx context.Context, point *routeguide.Point) (*routeguide.Feature, error) {
	if err := validate.Point("", point); err != nil {
		return nil, coded(ctx, err)
	}
	return h.guide.Feature(point), nil
}

func (h *handler) ListFeatures(ctx context.Context, rectangle *routeguide.Rectangle, stream *connect.ServerStream[routeguide.Feature]) error {
	if err := validate.Rectangle(rectangle); err != nil {
		return coded(ctx, err)
	}
	for feature := range h.guide.Within(rectangle) {
		if err := stream.Send(feature); err != nil {
			return err
		}
	}
	return nil
}

func (h *handler) RecordRoute(ctx context.Context, stream *connect.ClientStream[routeguide.Point]) (*routeguide.RouteSummary, error) {
	route := h.guide.StartRoute()
	for stream.Receive() {
		point := stream.Msg()
		if err := validate.Point("", point); err != nil {
			return nil, coded(ctx, err)
		}
		route.Pass(point)
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return route.Summary(), nil
}

func (h *handler) RouteChat(ctx context.Context, stream *connect.BidiStream[routeguide.RouteNote, routeguide.RouteNote]) error {
	start := time.Now()
	peer := stream.Peer()
	traffic, err := h.chats.Serve(ctx, newChatStream(ctx, stream, h.limits), h.pace.For(peer.Addr))
	if err == nil {
		err = gone(ctx)
	}
	ended := func(err error) { h.ended(ctx, stream.Spec().Procedure, peer, traffic, start, err) }
	if below, ok := wire.FromContext(ctx); ok && err == nil {
		below.AtEnd(func(gone error) { ended(canceled(gone)) }) // It is well only once the response is written.
	} else {
		ended(err)
	}
	return coded(ctx, err)
}

// ended takes note of a chat that has ended with err.
func (h *handler) ended(ctx context.Context, procedure string, peer connect.Peer, traffic chat.Traffic, start time.Time, err error) {
	about := []any{
		"peer", peer.Addr, "protocol", peer.Protocol,
		"in", traffic.In, "out", traffic.Out, "duration", time.Since(start), "code", code(ctx, err),
	}
	if panicked, ok := errors.AsType[*chat.PanicError](err); ok {
		h.panics.note(ctx, procedure, panicked.Value, panicked.Stack)
	}
	if err != nil {
		about = append(about, "err", err) // None of these errors has the text of a note in it.
	}
	if isStoreError(ctx, err) {
		h.failed.Add(1)
		h.logger.WarnContext(ctx, "chat ended", about...)
	} else {
		h.logger.InfoContext(ctx, "chat ended", about...)
	}
}
