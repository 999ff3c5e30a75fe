package service_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/service"
)

// awaitDrained waits until no stream is open any more.
func awaitDrained(t *testing.T, running *service.Service) {
	t.Helper()
	select {
	case <-running.Drained():
	case <-time.After(30 * time.Second):
		t.Fatal("streams are still open")
	}
}

func TestDrainRefusesCallsAlthoughNoStreamIsOpen(t *testing.T) {
	t.Parallel()
	url, running := start(t, notes.NewMemory())
	running.Drain()
	awaitDrained(t, running)
	client := dial(t, url)
	_, err := client.GetFeature(t.Context(), point(1, 1))
	checkCode(t, err, connect.CodeUnavailable)
	_, err = chatOf(t.Context(), client, note(1, "a"))
	checkCode(t, err, connect.CodeUnavailable)
}

// What a chat has sent is kept and answered, however slowly its client's pace would let it in.
func TestDrainDoesNotWaitForAPace(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.NotesPerSecond = 1e-6 // The first note is taken at once, and the next one after days.
	url, running := startWith(t, options)
	stream, err := dial(t, url).RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{"a", "b", "c"}
	for i, text := range texts {
		if err := stream.Send(note(int32(i), text)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := stream.Receive(); err != nil || got.GetMessage() != texts[0] {
		t.Fatalf("got %v, %v", got, err)
	}
	running.Drain()
	awaitDrained(t, running)
	for err == nil {
		_, err = stream.Receive()
	}
	checkCode(t, err, connect.CodeUnavailable)
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}

func TestDrainWaitsForStreams(t *testing.T) {
	t.Parallel()
	store := &never{notes.NewMemory(), make(chan struct{})}
	options := bounded()
	options.Chats.Store = store
	url, running := startWith(t, options)
	stream, err := dial(t, url).RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(note(1, "a")); err != nil {
		t.Fatal(err)
	}
	for running.Counts().Received < 1 {
		time.Sleep(time.Millisecond)
	}
	running.Drain()
	select {
	case <-running.Drained():
		t.Error("the drain has ended before a note was kept")
	default:
	}
	close(store.let)
	if got, err := stream.Receive(); err != nil || got.GetMessage() != "a" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = stream.Receive()
	checkCode(t, err, connect.CodeUnavailable)
	awaitDrained(t, running)
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}

// A store that recovers while the server leaves does not bring balancers back to it.
func TestHealthStaysNotServingOnceTheServerLeaves(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*service.Service, *service.Health){
		"Leave": func(_ *service.Service, health *service.Health) { health.Leave() },
		"Drain": func(running *service.Service, _ *service.Health) { running.Drain() },
	} {
		options := bounded()
		options.Health = service.NewHealth(slog.New(slog.DiscardHandler))
		_, running := startWith(t, options)
		options.Health.SetStore(notes.ErrUnavailable)
		if err := options.Health.Ready(); !errors.Is(err, notes.ErrUnavailable) {
			t.Errorf("without a store: got %v, want the reason", err)
		}
		options.Health.SetStore(nil)
		if err := options.Health.Ready(); err != nil {
			t.Errorf("before %s: %v", name, err)
		}
		leave(running, options.Health)
		options.Health.SetStore(nil)
		if options.Health.Ready() == nil {
			t.Errorf("after %s, and a store that has recovered, health is SERVING", name)
		}
	}
}

func TestChatLifeCountsWithAFarDeadline(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.MaxChatAge = 100 * time.Millisecond
	url, _ := startWith(t, options)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := dial(t, url).RouteChat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(note(1, "a")); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Receive()
	}
	checkCode(t, err, connect.CodeUnavailable)
	if !strings.Contains(err.Error(), "has lasted") {
		t.Errorf("the chat ended with %v", err)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}
