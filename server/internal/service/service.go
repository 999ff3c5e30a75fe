// Package service serves RouteGuide and NoteService over HTTP, with health and reflection, in the Connect, gRPC and
// gRPC-Web protocols. The handlers are thin: each turns a request into one call of package guide or chat, and an
// error into a code by the table in this package.
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
	"google.golang.org/protobuf/reflect/protoreflect"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/clientlimit"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/validate"
	"example.com/routeguide/server/wire"
)

// compressMinBytes is the smallest message, in bytes, that is compressed for a client that asks for it. Most
// notes and features are far shorter, and compression would cost more than the rest of the call.
const compressMinBytes = 1 << 10

// shortBytes is the size limit, in bytes, of request messages other than notes: a Point, a Rectangle, or the name
// of a service.
const shortBytes = 4 << 10

// A Service is RouteGuide and NoteService as an HTTP handler. Its methods are safe for concurrent use.
type Service struct {
	http.Handler

	chats   *chat.Server
	hub     *live.Hub
	health  *Health
	drain   *drain
	panics  *panics
	quotas  *quotas
	streams *wire.Streams
	// storeErrors counts calls that the store failed.
	storeErrors atomic.Int64
}

// Options configure a [Service]. Only Chats is required. A limit of 0 is no limit.
type Options struct {
	// Chats are the note store and the limits of chats.
	Chats chat.Options
	// Health reports to health checks. Drain makes it NOT_SERVING. Without it, the service makes its own.
	Health *Health
	// NotesPerSecond is the rate of the token bucket of each client, in notes per second. The burst is ten
	// seconds' worth. Clients are identified by their addresses.
	NotesPerSecond float64
	// MaxChats is the quota of chats in flight, MaxFollowers that of calls of FollowNotes, and MaxCalls the quota of other calls. Health
	// checks have a quota of their own, of MaxCalls, too.
	MaxChats, MaxFollowers, MaxCalls int
	// SnapshotLocations is the largest number of locations in the snapshot of a rectangle.
	SnapshotLocations int
	// Retention is the age from which on the store's notes are forgotten; 0 is never.
	Retention time.Duration
	// ClientShare is the share of MaxChats, MaxFollowers, MaxCalls and ArrivingBytes that one client may hold, between 0 and 1.
	ClientShare float64
	// MessageBytes is the size limit of a request message in bytes, after decompression.
	MessageBytes int
	// ArrivingBytes is the quota, in bytes, of notes longer than 4 KiB that have arrived in part, or are in a call of LeaveNote.
	ArrivingBytes int
	// RequestTimeout bounds the arrival of a request, and of each message of a RouteChat. It does not apply to
	// RecordRoute.
	RequestTimeout time.Duration
	// StallTimeout is the longest time a client may take to read 32 KiB of a response, or all that is written if that is less. The calls
	// of slower consumers are reset. Idle ones are not.
	StallTimeout time.Duration
	// MaxChatAge is the longest duration of a chat, and of a call of FollowNotes. An older one gets its pending replies, and UNAVAILABLE.
	MaxChatAge time.Duration
	// Origins are the origins allowed by CORS, such as https://example.com: their pages may call unary and
	// server-streaming RPCs from a browser. * is any origin.
	Origins []string
	// Require is the authorization middleware around all RPCs, inside the one that explains HTTP errors.
	Require func(http.Handler) http.Handler
	// Interceptors wrap all RPCs.
	Interceptors []connect.Interceptor
	// More are services to serve beside RouteGuide, under the same rules: their descriptors, and the constructors that
	// Connect generates for them. Their calls are of the quota MaxCalls, and their requests of MessageBytes.
	More map[protoreflect.ServiceDescriptor]func(...connect.HandlerOption) (path string, handler http.Handler)
	// Logger gets a line for each chat that has ended, with the full cause of errors whose details clients do not
	// see. If it is nil, nothing is logged.
	Logger *slog.Logger
}

// New returns a service for the features of guide. The caller must close it.
func New(guide *guide.Guide, options Options) *Service {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Health == nil {
		options.Health = NewHealth(options.Logger)
	}
	panics := &panics{logger: options.Logger}
	service := &Service{
		chats: chat.NewServer(options.Chats),
		hub: live.NewHub(live.Options{
			Store:        options.Chats.Store,
			Retention:    options.Retention,
			MaxLocations: options.SnapshotLocations,
			Draining:     errDraining,
			Logger:       options.Logger,
		}),
		health:  options.Health,
		drain:   newDrain(options.MaxChatAge, panics),
		panics:  panics,
		streams: wire.NewStreams(options.StallTimeout),
		quotas:  newQuotas(options),
	}
	handlerOptions := connect.WithHandlerOptions(
		connect.WithInterceptors(append(options.Interceptors, service.drain)...),
		connect.WithConditionalHandlerOptions(func(spec connect.Spec) []connect.HandlerOption {
			if spec.StreamType == connect.StreamTypeUnary {
				return []connect.HandlerOption{connect.WithRecover(panics.recover)}
			}
			return nil // drain recovers.
		}),
		connect.WithCompressMinBytes(compressMinBytes),
		connect.WithReadMaxBytes(options.MessageBytes),
		withGzip(options.MessageBytes),
	)
	// Only notes may be long.
	short := connect.WithReadMaxBytes(shortBytes)
	reflector := grpcreflect.NewStaticReflector(
		routeguideconnect.RouteGuideName,
		routeguidev1connect.NoteServiceName,
		grpchealth.HealthV1ServiceName,
		grpcreflect.ReflectV1ServiceName,
		grpcreflect.ReflectV1AlphaServiceName,
	)
	handler := &handler{
		guide:      guide,
		chats:      service.chats,
		hub:        service.hub,
		maxChatAge: options.MaxChatAge,
		rates:      clientlimit.NewRateLimiters(options.NotesPerSecond),
		limits:     messageLimits{bytes: options.MessageBytes, timeout: options.RequestTimeout, quotas: service.quotas},
		logger:     options.Logger,
		panics:     service.panics,
		failed:     &service.storeErrors,
	}
	procedures := make(procedures)
	procedures.add(methodsOf(routeguide.File_routeguide_route_guide_proto.Services().ByName("RouteGuide"))...)(routeguideconnect.NewRouteGuideHandler(handler, handlerOptions, connect.WithConditionalHandlerOptions(func(spec connect.Spec) []connect.HandlerOption {
		if spec.Procedure == routeguideconnect.RouteGuideRouteChatProcedure {
			return nil
		}
		return []connect.HandlerOption{short}
	})))
	path, noteService := routeguidev1connect.NewNoteServiceHandler(handler, handlerOptions)
	procedures.add(methodsOf(routeguidev1.File_routeguide_v1_note_service_proto.Services().ByName("NoteService"))...)(path, service.quotas.withArriving(noteService))
	addHealth(procedures, service.health.checker, handlerOptions, short)
	procedures.add("ServerReflectionInfo")(grpcreflect.NewHandlerV1(reflector, handlerOptions, short))
	procedures.add("ServerReflectionInfo")(grpcreflect.NewHandlerV1Alpha(reflector, handlerOptions, short))
	for descriptor, newHandler := range options.More {
		procedures.add(methodsOf(descriptor)...)(newHandler(handlerOptions))
	}
	inner := http.Handler(procedures)
	if options.Require != nil {
		inner = options.Require(inner)
	}
	allow := withCORS(options.Origins)
	respond := func(next http.Handler) http.Handler {
		return service.streams.Handler(allow(next))
	}
	inner = respond(withRequestTimeout(options.RequestTimeout, explain(procedures, inner)))
	service.Handler = service.quotas.admit(inner, respond)
	return service
}

// Close stops the service's goroutines. It must not be called while calls are open.
func (s *Service) Close() {
	s.hub.Close()
	s.streams.Close()
}

// Counts returns the counters of all notes and chats so far.
func (s *Service) Counts() chat.Counts { return s.chats.Counts() }

// Live returns the counters of the notes that were delivered to followers.
func (s *Service) Live() live.Counts { return s.hub.Counts() }

// StoreErrors returns the number of calls that ended with an error of the store.
func (s *Service) StoreErrors() int64 { return s.storeErrors.Load() }

// Calls returns the number of calls in flight other than chats.
func (s *Service) Calls() int64 { return s.quotas.calls.InUse() + s.quotas.health.InUse() }

// Arriving returns the bytes in use of the quota ArrivingBytes.
func (s *Service) Arriving() int64 { return s.quotas.arriving.InUse() }

// Refused returns the number of calls and long messages that were over a quota.
func (s *Service) Refused() int64 { return s.quotas.refused.Load() }

// Stalled returns the number of calls that were reset because their clients did not read the response.
func (s *Service) Stalled() int64 { return s.streams.Stalled() }

// Panics returns the number of calls that ended with a panic.
func (s *Service) Panics() int64 { return s.panics.count.Load() }

// OldestPending returns the time of the oldest note with a pending reply, or now if that is older.
func (s *Service) OldestPending(now int64) int64 {
	return s.chats.OldestPending(now)
}

// Drain starts a graceful shutdown and does not wait for it. New calls get UNAVAILABLE. Open streams stop
// reading; the notes they have received are kept and answered, and then they end with UNAVAILABLE. The health
// status stays NOT_SERVING.
func (s *Service) Drain() {
	s.drain.refuse()
	s.health.Leave()
	s.drain.liftRateLimit.Do(s.chats.LiftRateLimit)
	s.drain.stop()
	s.chats.StopFollowing(errDraining)
}

// Abort ends the chats that still have pending replies, with UNKNOWN, after Drain: the client cannot know what became of its notes.
func (s *Service) Abort() { s.chats.Abort() }

// Drained returns a channel that is closed once all streams have ended after a Drain.
func (s *Service) Drained() <-chan struct{} {
	return s.drain.drained
}

// handler implements the generated interfaces. Its methods return errors with a code, see [coded].
type handler struct {
	guide      *guide.Guide
	chats      *chat.Server
	hub        *live.Hub
	maxChatAge time.Duration
	rates      *clientlimit.RateLimiters
	limits     messageLimits
	logger     *slog.Logger
	panics     *panics
	failed     *atomic.Int64 // number of calls that the store failed
}

func (h *handler) GetFeature(ctx context.Context, point *routeguide.Point) (*routeguide.Feature, error) {
	if err := validate.Point("", point); err != nil {
		return nil, coded(ctx, err)
	}
	return h.guide.Feature(point), nil
}

func (h *handler) ListFeatures(ctx context.Context, rectangle *routeguide.Rectangle, stream *connect.ServerStream[routeguide.Feature]) error {
	if err := validate.Rectangle("", rectangle); err != nil {
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

func (h *handler) LeaveNote(ctx context.Context, request *routeguidev1.LeaveNoteRequest) (*routeguidev1.LeaveNoteResponse, error) {
	if err := holdText(ctx, request.GetText()); err != nil {
		return nil, err
	}
	var peer connect.Peer
	if call, ok := connect.CallInfoForHandlerContext(ctx); ok {
		peer = call.Peer()
	}
	note, err := h.chats.Leave(ctx, request, h.rates.For(peer.Addr))
	if isStoreError(ctx, err) {
		h.failed.Add(1)
		h.logger.WarnContext(ctx, "note not left", "peer", peer.Addr, "protocol", peer.Protocol, "code", code(ctx, err), "err", err)
	}
	if err != nil {
		return nil, coded(ctx, err)
	}
	return &routeguidev1.LeaveNoteResponse{Note: note}, nil
}

func (h *handler) RouteChat(ctx context.Context, stream *connect.BidiStream[routeguide.RouteNote, routeguide.RouteNote]) error {
	chat := newChatStream(ctx, stream, h.limits)
	chat.traffic, chat.err = h.serveChat(ctx, chat)
	return h.endChat(chat)
}

// endChat logs the end of a chat, and returns the error for the client. A success is logged once the response is delivered.
func (h *handler) endChat(chat *chatStream) error {
	if chat.sender.wireStream != nil && chat.err == nil {
		chat.sender.wireStream.AtEnd(func(gone error) {
			chat.err = canceled(gone)
			h.logEnd(chat)
		})
		return nil
	}
	h.logEnd(chat)
	return coded(chat.ctx, chat.err)
}

// logEnd logs and counts the end of a chat.
func (h *handler) logEnd(ended *chatStream) {
	ctx, err, peer := ended.ctx, ended.err, ended.Peer()
	attrs := []any{
		"peer", peer.Addr, "protocol", peer.Protocol,
		"in", ended.traffic.In, "out", ended.traffic.Out, "duration", time.Since(ended.start), "code", code(ctx, err),
	}
	if panicked, ok := errors.AsType[*chat.PanicError](err); ok {
		h.panics.record(ctx, ended.Spec().Procedure, panicked.Value, panicked.Stack)
	}
	if err != nil {
		attrs = append(attrs, "err", err) // None of these errors contains the text of a note.
	}
	if isStoreError(ctx, err) {
		h.failed.Add(1)
		h.logger.WarnContext(ctx, "chat ended", attrs...)
	} else {
		h.logger.InfoContext(ctx, "chat ended", attrs...)
	}
}
