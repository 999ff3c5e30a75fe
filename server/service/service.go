// Package service puts RouteGuide on HTTP: its four RPCs, health and reflection, over the Connect,
// gRPC and gRPC-Web protocols. The handlers are thin. Each makes a request into one call of the
// packages guide or chat, and an error into a code by the table in this package.
package service

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/chat"
	"example.com/routeguide/server/guide"
	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/validate"
	"example.com/routeguide/server/wire"
)

// compressMinBytes is how long a message must be to be compressed for a client that asks for it.
// Most notes and features are far shorter, and compressing them costs more than all the rest.
const compressMinBytes = 1 << 10

// A Service is RouteGuide as an HTTP handler. All of its methods may be called concurrently.
type Service struct {
	http.Handler

	chats  *chat.Host
	health *grpchealth.StaticChecker
	// statusMu makes what is set of health one thing.
	statusMu sync.Mutex
	drain    *drain
}

// Options are what a [Service] needs to know of notes.
type Options struct {
	// Store keeps the notes.
	Store notes.Store
	// History is how many notes a reply of RouteChat has at most, the newest; 0 is all.
	History int
	// Logger gets the causes of errors that a client is told only the kind of. Without it, nothing
	// is logged.
	Logger *slog.Logger
}

// New returns a service that knows the features of guide.
func New(guide *guide.Guide, options Options) *Service {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	service := &Service{
		chats:  chat.NewHost(options.Store, options.History),
		health: grpchealth.NewStaticChecker("", routeguideconnect.RouteGuideName),
		drain:  newDrain(),
	}
	handlerOptions := connect.WithHandlerOptions(
		connect.WithInterceptors(service.drain),
		connect.WithCompressMinBytes(compressMinBytes),
	)
	reflector := grpcreflect.NewStaticReflector(
		routeguideconnect.RouteGuideName,
		grpchealth.HealthV1ServiceName,
		grpcreflect.ReflectV1ServiceName,
		grpcreflect.ReflectV1AlphaServiceName,
	)
	mux := http.NewServeMux()
	mux.Handle(routeguideconnect.NewRouteGuideHandler(&handler{guide: guide, chats: service.chats, logger: options.Logger}, handlerOptions))
	mux.Handle(grpchealth.NewHandler(service.health, handlerOptions))
	mux.Handle(grpcreflect.NewHandlerV1(reflector, handlerOptions))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector, handlerOptions))
	service.Handler = wire.NewHandler(explain(mux))
	return service
}

// SetServing sets what health says of the service, until it drains: from then on it is NOT_SERVING.
func (s *Service) SetServing(serving bool) {
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	status := grpchealth.StatusServing
	if !serving || s.drain.isDraining() {
		status = grpchealth.StatusNotServing
	}
	s.health.SetStatus("", status)
	s.health.SetStatus(routeguideconnect.RouteGuideName, status)
}

// errNotServing says that calls would be refused.
var errNotServing = errors.New("not serving")

// Ready returns nil if health says SERVING.
func (s *Service) Ready() error {
	status, err := s.health.Check(context.Background(), &grpchealth.CheckRequest{})
	if err == nil && status.Status != grpchealth.StatusServing {
		err = errNotServing
	}
	return err
}

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
	s.SetServing(false)
	s.drain.stop()
}

// Drained returns a channel that is closed when every stream has ended, after Drain.
func (s *Service) Drained() <-chan struct{} {
	return s.drain.empty
}

// handler is the generated interface. Its methods return errors that [codeOf] knows.
type handler struct {
	guide  *guide.Guide
	chats  *chat.Host
	logger *slog.Logger
}

func (h *handler) GetFeature(_ context.Context, point *routeguide.Point) (*routeguide.Feature, error) {
	if err := validate.Point("", point); err != nil {
		return nil, coded(err)
	}
	return h.guide.Feature(point), nil
}

func (h *handler) ListFeatures(_ context.Context, rectangle *routeguide.Rectangle, stream *connect.ServerStream[routeguide.Feature]) error {
	if err := validate.Rectangle(rectangle); err != nil {
		return coded(err)
	}
	for feature := range h.guide.Within(rectangle) {
		if err := stream.Send(feature); err != nil {
			return err
		}
	}
	return nil
}

func (h *handler) RecordRoute(_ context.Context, stream *connect.ClientStream[routeguide.Point]) (*routeguide.RouteSummary, error) {
	route := h.guide.StartRoute()
	for stream.Receive() {
		point := stream.Msg()
		if err := validate.Point("", point); err != nil {
			return nil, coded(err)
		}
		route.Pass(point)
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return route.Summary(), nil
}

func (h *handler) RouteChat(ctx context.Context, stream *connect.BidiStream[routeguide.RouteNote, routeguide.RouteNote]) error {
	err := h.chats.Serve(ctx, newChatStream(ctx, stream))
	if isStores(err) {
		h.logger.WarnContext(ctx, "a chat has ended with an error of the store", "peer", stream.Peer().Addr, "err", err)
	}
	return coded(err)
}
