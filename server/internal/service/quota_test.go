package service_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/internal/rawhttp2"
)

func TestMaxChatsRefusesChat(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.MaxChats = 1
	url, _ := startWith(t, options)
	client := dial(t, url)
	first := openChat(t, client)
	_, err := chatOf(t.Context(), client, note(1, "b"))
	checkCode(t, err, connect.CodeResourceExhausted)
	_, _ = first.CloseRequest(), first.CloseResponse()
}

// MaxCalls refuses calls, and does not count chats.
func TestMaxCallsRefusesCall(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.MaxCalls = 2
	url, running := startWith(t, options)
	client := dial(t, url)
	var ends []func() (*routeguide.RouteSummary, error)
	for range 2 {
		route, err := client.RecordRoute(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := route.Send(point(1, 1)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, route.CloseAndReceive)
	}
	for running.Calls() < 2 {
		time.Sleep(time.Millisecond)
	}
	_, err := client.GetFeature(t.Context(), point(1, 1))
	checkCode(t, err, connect.CodeResourceExhausted)
	if _, err := chatOf(t.Context(), client, note(1, "a chat")); err != nil {
		t.Errorf("a chat meanwhile: %v", err)
	}
	for _, end := range ends {
		if _, err := end(); err != nil {
			t.Error(err)
		}
	}
	if _, err := client.GetFeature(t.Context(), point(1, 1)); err != nil {
		t.Errorf("after the others: %v", err)
	}
	if refused := running.Refused(); refused != 1 {
		t.Errorf("%d calls were refused, want 1", refused)
	}
}

// A call holds its quota until the client has read the response, or StallTimeout resets the stream.
func TestMaxCallsCountsCallUntilResponseIsRead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	options := bounded()
	options.MaxCalls, options.StallTimeout = 2, 5*time.Second
	url, running := startWith(t, options)
	conn, err := rawhttp2.Dial(strings.TrimPrefix(url, "http://"), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for stream := uint32(1); stream < 11; stream += 2 {
		if err := errors.Join(conn.Open(stream, routeguideconnect.RouteGuideGetFeatureProcedure, "application/json"), conn.WriteData(stream, true, []byte("{}"))); err != nil {
			t.Fatal(err)
		}
	}
	for running.Refused() < 3 {
		time.Sleep(time.Millisecond)
	}
	if calls := running.Calls(); calls != 2 {
		t.Errorf("%d calls are open, want 2", calls)
	}
	for resets := 0; resets < 5; {
		frame, err := conn.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := frame.(*http2.RSTStreamFrame); ok {
			resets++
		}
	}
	for running.Calls() > 0 {
		time.Sleep(time.Millisecond)
	}
	if stalled := running.Stalled(); stalled != 5 {
		t.Errorf("%d calls have stalled, want 2 and 3 refusals", stalled)
	}
}

func TestClientShareRefusesChat(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.MaxChats, options.ClientShare = 4, 0.25
	url, _ := startWith(t, options)
	client := dial(t, url)
	first := openChat(t, client)
	_, err := chatOf(t.Context(), client, note(1, "b"))
	checkCode(t, err, connect.CodeResourceExhausted)
	if err == nil || !strings.Contains(err.Error(), "of this client") {
		t.Errorf("the error is %v", err)
	}
	_, _ = first.CloseRequest(), first.CloseResponse()
}

// Chats and refusals release their quota: more of them arrive one after another than the quotas hold at once.
func TestQuotaIsReleased(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.MaxChats = 1
	url, running := startWith(t, options)
	client := dial(t, url)
	open := openChat(t, client)
	const refused = 120 // Above the quotas of refusals in flight: 10 for a client, 100 in total.
	for range refused {
		_, err := chatOf(t.Context(), client, note(1, "b"))
		checkCode(t, err, connect.CodeResourceExhausted)
		if err == nil || !strings.Contains(err.Error(), "on this server") {
			t.Fatalf("the error is %v", err)
		}
	}
	if got := running.Refused(); got != refused {
		t.Errorf("%d chats were refused, want %d", got, refused)
	}
	_, _ = open.CloseRequest(), open.CloseResponse()
	for range 3 {
		// The chat before releases its quota when its handler returns, shortly after its client sees the end.
		_, err := chatOf(t.Context(), client, note(1, "c"))
		for deadline := time.Now().Add(30 * time.Second); connect.CodeOf(err) == connect.CodeResourceExhausted && time.Now().Before(deadline); {
			_, err = chatOf(t.Context(), client, note(1, "c"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
