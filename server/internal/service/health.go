package service

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
)

// Health is the health of a server: SERVING while its store takes notes and the server is not shutting down. Create it
// before the store and the [Service]: both report to it. Its methods may be called concurrently.
type Health struct {
	checker *grpchealth.StaticChecker
	logger  *slog.Logger

	mu       sync.Mutex // guards the rest, and the order in which the checker is told
	storeErr error      // reason for which the store takes no notes
	leaving  bool       // NOT_SERVING until the end
}

// NewHealth returns the health of a server whose store takes notes. The logger gets each change of that.
func NewHealth(logger *slog.Logger) *Health {
	return &Health{checker: grpchealth.NewStaticChecker(healthServices...), logger: logger}
}

// errLeaving is why a server that shuts down is not ready.
var errLeaving = errors.New("shutting down")

// SetStore reports that the store takes no notes, and why, or with nil that it takes notes again.
func (h *Health) SetStore(err error) {
	if err != nil {
		h.logger.Error("no notes can be taken", "err", err)
	} else {
		h.logger.Info("notes can be taken again")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.storeErr = err
	h.update()
}

// Leave makes health NOT_SERVING for good, while calls are still served.
func (h *Health) Leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaving = true
	h.update()
}

// Ready returns nil if health is SERVING, and otherwise the reason.
func (h *Health) Ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready()
}

// ready is Ready. The caller holds h.mu.
func (h *Health) ready() error {
	if h.leaving {
		return errLeaving
	}
	return h.storeErr
}

// update tells those who watch. The caller holds h.mu.
func (h *Health) update() {
	status := grpchealth.StatusServing
	if h.ready() != nil {
		status = grpchealth.StatusNotServing
	}
	for _, service := range healthServices {
		h.checker.SetStatus(service, status)
	}
}

// addHealth adds the gRPC health service (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). It
// adds List, which grpchealth lacks, and a Watch that accepts unknown services.
func addHealth(procedures procedures, checker *grpchealth.StaticChecker, options ...connect.HandlerOption) {
	procedures.add("Check")(grpchealth.NewHandler(checker, options...))
	procedures.add("Watch")(grpchealth.NewHandler(watcher{checker}, options...))
	list := healthv1.Health_List_FullMethodName
	procedures[list] = connect.NewUnaryHandlerSimple(list, func(ctx context.Context, _ *healthv1.HealthListRequest) (*healthv1.HealthListResponse, error) {
		statuses := make(map[string]*healthv1.HealthCheckResponse)
		for _, service := range healthServices {
			health, err := checker.Check(ctx, &grpchealth.CheckRequest{Service: service})
			if err != nil {
				return nil, err
			}
			statuses[service] = &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_ServingStatus(health.Status)}
		}
		return &healthv1.HealthListResponse{Statuses: statuses}, nil
	}, options...)
}

// healthServices are the names of the services with a health status. The empty name is the whole server.
var healthServices = []string{"", routeguideconnect.RouteGuideName, routeguidev1connect.NoteServiceName}

// watcher is the checker for Watch: for an unknown service it reports SERVICE_UNKNOWN and goes on, where Check
// fails with NOT_FOUND.
type watcher struct{ *grpchealth.StaticChecker }

// Check implements [grpchealth.Checker].
func (w watcher) Check(ctx context.Context, request *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	response, err := w.StaticChecker.Check(ctx, request)
	if connect.CodeOf(err) == connect.CodeNotFound {
		return &grpchealth.CheckResponse{Status: grpchealth.Status(healthv1.HealthCheckResponse_SERVICE_UNKNOWN)}, nil
	}
	return response, err
}

// Watch implements [grpchealth.Watcher]. The status of an unknown service never changes.
func (w watcher) Watch(ctx context.Context, request *grpchealth.CheckRequest, onChange func()) (stop func(), err error) {
	stop, err = w.StaticChecker.Watch(ctx, request, onChange)
	if connect.CodeOf(err) == connect.CodeNotFound {
		return func() {}, nil
	}
	return stop, err
}
