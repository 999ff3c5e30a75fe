package main

import (
	"regexp"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/process"
	"example.com/routeguide/internal/redistest"
)

// openRedisChat opens a chat with a server on Redis, and returns the server with the URL of its metrics.
func openRedisChat(t *testing.T, redis *redistest.Node, args ...string) (
	server *process.Process, metrics string, stream *connect.BidiStreamForClientSimple[routeguide.RouteNote, routeguide.RouteNote],
) {
	t.Helper()
	server, url := startProcess(t, append([]string{"--store", "redis://" + redis.Addr, "--admin", "127.0.0.1:0"}, args...)...)
	admin, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	client, err := routechat.New(url, connect.WithGRPC())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if stream, err = client.RouteChat(t.Context()); err != nil {
		t.Fatal(err)
	}
	return server, "http://" + admin[1] + "/metrics", stream
}

// A timeout of Redis must not end a chat with DEADLINE_EXCEEDED: that code is for the client's deadline.
func TestRedisTimeoutIsNotDeadlineExceeded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	redis := redistest.Start(t)
	server, metrics, stream := openRedisChat(t, redis)
	if err := stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(redis.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{Latitude: 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeUnknown {
		t.Errorf("a note that may have been kept: got %v, want UNKNOWN", err)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
	if _, err := server.Await(`level=WARN msg="chat ended".*code=unknown`); err != nil {
		t.Error(err)
	}
	eventually(t, "the metric counts one error of the store", func() bool {
		return regexp.MustCompile(`(?m)^routeguide_store_errors_total 1$`).MatchString(get(t, metrics))
	})
}

// At the shutdown timeout, a note may be on its way to a store that hangs: its client must not take it for one that was not
// stored.
func TestShutdownTimeoutLeavesFateUnknown(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	server, metrics, stream := openRedisChat(t, redis, "--shutdown-timeout", "100ms")
	if err := syscall.Kill(redis.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{Latitude: 1}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the note is on its way", func() bool {
		return strings.Contains(get(t, metrics), "\nrouteguide_replies_pending 1\n")
	})
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeUnknown {
		t.Errorf("got %v, want UNKNOWN", err)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
	if code, err := server.Wait(); err != nil || code != 0 {
		t.Errorf("the server ended with %d, %v", code, err)
	}
}
