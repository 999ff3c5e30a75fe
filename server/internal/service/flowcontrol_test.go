package service_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// Backpressure on chats of slow consumers must not use up the connection's flow-control window: other streams
// on the connection go on.
func TestFlowControlIsolatesChatsOfSlowConsumers(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.Chats.MaxPending = 1000
	url, running := startWith(t, options)
	client := dial(t, url, connect.WithGRPC())
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	defer writing.Wait()
	var written atomic.Int64
	const slowConsumers = 20
	for i := range int32(slowConsumers) {
		stream, err := client.RouteChat(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.CloseResponse() // The end of ctx alone does not unblock a Send that waits for its window.
		writing.Go(func() {
			for stream.Send(note(i, strings.Repeat("x", 1000))) == nil {
				written.Add(1)
			}
		})
	}
	// They write until the server reads no more.
	for before := int64(-1); running.Counts().Pending < 1000 || written.Load() != before; time.Sleep(200 * time.Millisecond) {
		before = written.Load()
	}
	if got, err := chatOf(t.Context(), client, note(1000, "a"), note(1000, strings.Repeat("b", 60_000)), note(1000, "c")); err != nil || len(got) != 1+2+3 {
		t.Errorf("a chat on the same connection got %d replies, %v", len(got), err)
	}
	if _, err := client.GetFeature(t.Context(), point(1, 1)); err != nil {
		t.Error(err)
	}
	cancel()
}

// A chat that replays a long history shares its connection with other chats.
func TestReplaySharesConnectionWithOtherChat(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	long, err := proto.Marshal(note(1, strings.Repeat("x", 10_000)))
	if err != nil {
		t.Fatal(err)
	}
	const history = 5000 // 50 MB
	for range history {
		if _, err := notes.Append(t.Context(), store, notes.Location{Longitude: 1}, notes.Note{Encoded: long}); err != nil {
			t.Fatal(err)
		}
	}
	url, _ := start(t, store)
	client := dial(t, url)
	replaying, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := replaying.Send(note(1, "replay")); err != nil {
		t.Fatal(err)
	}
	var received atomic.Int64
	var replay sync.WaitGroup
	replay.Go(func() {
		for received.Load() <= history {
			if _, err := replaying.Receive(); err != nil {
				t.Error(err)
				return
			}
			received.Add(1)
		}
	})
	for received.Load() == 0 {
		runtime.Gosched()
	}
	answered := int32(0)
	for ; received.Load() < history; answered++ {
		if err := other.Send(note(100+answered, "other")); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	replay.Wait()
	if answered < 10 {
		t.Errorf("%d replies arrived during the replay, want at least 10", answered)
	}
	t.Logf("%d replies arrived during a replay of %d notes", answered, history)
	for _, end := range []func() error{replaying.CloseRequest, replaying.CloseResponse, other.CloseRequest, other.CloseResponse} {
		_ = end()
	}
}
