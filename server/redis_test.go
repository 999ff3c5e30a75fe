package main

import (
	"regexp"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/redistest"
)

// A timeout of Redis must not end a chat with DEADLINE_EXCEEDED: that code is for the client's deadline.
func TestRedisTimeoutIsNotDeadlineExceeded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	redis := redistest.Start(t)
	server, url := startProcess(t, "--store", "redis://"+redis.Addr, "--admin", "127.0.0.1:0")
	admin, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	client, err := routechat.New(url, connect.WithGRPC())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
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
		return regexp.MustCompile(`(?m)^routeguide_store_errors_total 1$`).MatchString(get(t, "http://"+admin[1]+"/metrics"))
	})
}

// At the shutdown timeout, a note may be on its way to a store that hangs: its client must not take it for one that was not
// stored.
func TestShutdownTimeoutLeavesFateUnknown(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	server, url := startProcess(t, "--store", "redis://"+redis.Addr, "--shutdown-timeout", "100ms", "--admin", "127.0.0.1:0")
	admin, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	client, err := routechat.New(url, connect.WithGRPC())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(redis.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{Latitude: 1}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the note is on its way", func() bool {
		return strings.Contains(get(t, "http://"+admin[1]+"/metrics"), "\nrouteguide_replies_pending 1\n")
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
