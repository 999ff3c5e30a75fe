package main

import (
	"regexp"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/redistest"
)

// The store's deadline is not the client's: a chat without one, or with a far one, never ends with DEADLINE_EXCEEDED
// because Redis hangs.
func TestRedisThatHangsIsNoDeadlineOfTheClient(t *testing.T) {
	t.Parallel()
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
	written, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := written.Send(&routeguide.RouteNote{Location: &routeguide.Point{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := written.Receive(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(redis.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := written.Send(&routeguide.RouteNote{Location: &routeguide.Point{Latitude: 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := written.Receive(); connect.CodeOf(err) != connect.CodeUnknown {
		t.Errorf("a note that may be kept: got %v, want UNKNOWN", err)
	}
	_, _ = written.CloseRequest(), written.CloseResponse()
	if _, err := server.Await(`level=WARN msg="chat ended".*code=unknown`); err != nil {
		t.Error(err)
	}
	eventually(t, "the metric counts one error of the store", func() bool {
		return regexp.MustCompile(`(?m)^routeguide_store_errors_total 1$`).MatchString(get(t, "http://"+admin[1]+"/metrics"))
	})
}
