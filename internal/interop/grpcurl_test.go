package interop

import (
	"strings"
	"testing"

	"example.com/routeguide/internal/process"
)

func TestGrpcurlListsAndDescribes(t *testing.T) {
	t.Parallel()
	address := startOurs(t)
	listed := strings.Fields(run(t, grpcurl, "-plaintext", address, "list"))
	for _, want := range []string{"routeguide.RouteGuide", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} {
		if !strings.Contains(strings.Join(listed, " "), want) {
			t.Errorf("grpcurl lists %v, want %s too", listed, want)
		}
	}
	described := run(t, grpcurl, "-plaintext", address, "describe", "routeguide.RouteGuide")
	if want := "rpc RouteChat ( stream .routeguide.RouteNote ) returns ( stream .routeguide.RouteNote );"; !strings.Contains(described, want) {
		t.Errorf("grpcurl describes\n%s\nwant %s", described, want)
	}
}

func TestGrpcurlHealthCheckAndWatch(t *testing.T) {
	t.Parallel()
	address := startOurs(t)
	for _, request := range []string{`{}`, `{"service": "routeguide.RouteGuide"}`} {
		if health := run(t, grpcurl, "-plaintext", "-d", request, address, "grpc.health.v1.Health/Check"); !strings.Contains(health, `"SERVING"`) {
			t.Errorf("health check %s: %s", request, health)
		}
	}
	watch, err := process.Start(grpcurl, "-plaintext", "-d", "{}", address, "grpc.health.v1.Health/Watch")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Await(`"SERVING"`); err != nil {
		t.Error(err)
	}
	if err := watch.Kill(); err != nil {
		t.Error(err)
	}
}

// An interactive session: each note is sent after the reply to the previous one.
func TestGrpcurlInteractiveRouteChat(t *testing.T) {
	t.Parallel()
	session, err := process.Start(grpcurl, "-plaintext", "-d", "@", startOurs(t), "routeguide.RouteGuide/RouteChat")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ note, reply string }{
		{`{"location": {"longitude": 1}, "message": "one"}`, `(?s)"one"`},
		{`{"location": {"longitude": 2}, "message": "elsewhere"}`, `(?s)"elsewhere"`},
		{`{"location": {"longitude": 1}, "message": "two"}`, `(?s)"elsewhere".*"one".*"two"`},
	} {
		if err := session.Type(step.note); err != nil {
			t.Fatal(err)
		}
		if _, err := session.Await(step.reply); err != nil {
			t.Fatal(err)
		}
	}
	if err := session.CloseInput(); err != nil {
		t.Fatal(err)
	}
	if code, err := session.Wait(); code != 0 || err != nil {
		t.Errorf("grpcurl ended with exit code %d, %v:\n%s", code, err, session.Printed())
	}
}

func TestGrpcurlGetsBadRequestDetail(t *testing.T) {
	t.Parallel()
	printed, err := process.Run(t.Context(), grpcurl, "-plaintext", "-d", `{"message": "where?"}`, startOurs(t), "routeguide.RouteGuide/RouteChat")
	if err == nil {
		t.Fatal("a note without a location is accepted")
	}
	for _, want := range []string{"InvalidArgument", "location: must be set", "google.rpc.BadRequest"} {
		if !strings.Contains(printed, want) {
			t.Errorf("grpcurl printed\n%s\nwant %s", printed, want)
		}
	}
}
