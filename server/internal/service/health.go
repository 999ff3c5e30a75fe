package service

import (
	"context"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
)

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
var healthServices = []string{"", routeguideconnect.RouteGuideName}

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
