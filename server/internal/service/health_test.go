package service_test

import (
	"log/slog"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/service"
)

// newHTTP2 returns an h2c client.
func newHTTP2(t *testing.T) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// For an unknown service, Watch reports SERVICE_UNKNOWN and goes on, while Check fails with NOT_FOUND
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
func TestHealthWatchUnknownService(t *testing.T) {
	t.Parallel()
	url, running := start(t, memorystore.New())
	caller := newHTTP2(t)
	for _, option := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC()} {
		watch, err := connect.NewClient[healthv1.HealthCheckRequest, healthv1.HealthCheckResponse](caller, url+healthv1.Health_Watch_FullMethodName, option).
			CallServerStream(t.Context(), connect.NewRequest(&healthv1.HealthCheckRequest{Service: "some.Service"}))
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Close()
		if !watch.Receive() || watch.Msg().GetStatus() != healthv1.HealthCheckResponse_SERVICE_UNKNOWN {
			t.Fatalf("got %v, %v, want SERVICE_UNKNOWN", watch.Msg(), watch.Err())
		}
		// The watch is still open: only the drain ends it.
		defer func() {
			if watch.Receive() {
				t.Errorf("got %v, want nothing more", watch.Msg())
			}
			checkCode(t, watch.Err(), connect.CodeUnavailable)
		}()
	}
	_, err := grpchealth.NewClient(caller, url).Check(t.Context(), &grpchealth.CheckRequest{Service: "some.Service"})
	checkCode(t, err, connect.CodeNotFound)
	running.Drain()
}

func TestHealthList(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.Health = service.NewHealth(slog.New(slog.DiscardHandler))
	url, _ := startWith(t, options)
	list := connect.NewClient[healthv1.HealthListRequest, healthv1.HealthListResponse](newHTTP2(t), url+healthv1.Health_List_FullMethodName, connect.WithGRPC())
	for _, want := range []healthv1.HealthCheckResponse_ServingStatus{healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING} {
		listed, err := list.CallUnary(t.Context(), connect.NewRequest(&healthv1.HealthListRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		statuses := listed.Msg.GetStatuses()
		if len(statuses) != 3 || statuses[""].GetStatus() != want || statuses[routeguideconnect.RouteGuideName].GetStatus() != want || statuses[routeguidev1connect.NoteServiceName].GetStatus() != want {
			t.Errorf("got %v, want the server and its services, %v", statuses, want)
		}
		options.Health.Leave()
	}
}
