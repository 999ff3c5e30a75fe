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
)

// Chats that are not read from any more, since their clients do not read, leave room on their connection for others.
func TestAChatThatIsNotReadFromLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.Chats.MaxPending = 1000
	url, running := startWith(t, options)
	client := dial(t, url, connect.WithGRPC())
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	defer writing.Wait()
	var written atomic.Int64
	const stuck = 5
	for i := range int32(stuck) {
		stream, err := client.RouteChat(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.CloseResponse() // The end of ctx by itself does not wake a Send that waits for its window.
		writing.Go(func() {
			for stream.Send(note(i, strings.Repeat("x", 1000))) == nil {
				written.Add(1)
			}
		})
	}
	// They write until nobody takes anything of it.
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

// A chat that replays a long history does not keep another one on its connection waiting.
func TestALongReplayIsSharedWithOthers(t *testing.T) {
	t.Parallel()
	store := notes.NewMemory()
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
	beside, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := replaying.Send(note(1, "all of it")); err != nil {
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
		if err := beside.Send(note(100+answered, "beside")); err != nil {
			t.Fatal(err)
		}
		if _, err := beside.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	replay.Wait()
	if answered < 10 {
		t.Errorf("%d replies came beside the replay, want some", answered)
	}
	t.Logf("%d replies came beside a replay of %d notes", answered, history)
	for _, end := range []func() error{replaying.CloseRequest, replaying.CloseResponse, beside.CloseRequest, beside.CloseResponse} {
		_ = end()
	}
}
