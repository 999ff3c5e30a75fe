package service_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/service"
)

// Drain ends chats, client streams and health's Watch with UNAVAILABLE. Health checks are still answered.
func TestDrainEndsEveryKindOfStream(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	url, running := start(t, store)
	client := dial(t, url)
	chat := openChat(t, client)
	route, err := client.RecordRoute(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := route.Send(point(1, 1)); err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	health := grpchealth.NewClient(&http.Client{Transport: transport}, url)
	watching := health.Watch(t.Context(), &grpchealth.CheckRequest{Service: routeguideconnect.RouteGuideName})
	if event := <-watching; event.Err != nil || event.Response.Status != grpchealth.StatusServing {
		t.Errorf("health is %v, %v before the drain", event.Response, event.Err)
	}

	running.Drain()

	_, err = chat.Receive()
	checkCode(t, err, connect.CodeUnavailable)
	_ = chat.CloseRequest()
	_ = chat.CloseResponse()
	_, err = route.CloseAndReceive()
	checkCode(t, err, connect.CodeUnavailable)
	if event := <-watching; event.Err != nil || event.Response.Status != grpchealth.StatusNotServing {
		t.Errorf("health is %v, %v during the drain", event.Response, event.Err)
	}
	event := <-watching
	checkCode(t, event.Err, connect.CodeUnavailable)
	if health, err := health.Check(t.Context(), &grpchealth.CheckRequest{}); err != nil || health.Status != grpchealth.StatusNotServing {
		t.Errorf("health is %v, %v during the drain", health, err)
	}
	<-running.Drained()
	_, err = client.GetFeature(t.Context(), point(1, 1))
	checkCode(t, err, connect.CodeUnavailable)
	if chat, err := client.RouteChat(t.Context()); err == nil {
		_, err = chat.Receive()
		checkCode(t, err, connect.CodeUnavailable)
		_ = chat.CloseRequest()
		_ = chat.CloseResponse()
	}
}

// A chat with a deadline whose client neither writes nor resets the stream ends with DEADLINE_EXCEEDED.
func TestRouteChatEndsAtClientDeadline(t *testing.T) {
	t.Parallel()
	url, _ := start(t, memorystore.New())
	encoded, err := proto.Marshal(note(1, "a"))
	if err != nil {
		t.Fatal(err)
	}
	body, write := io.Pipe()
	defer write.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+routeguideconnect.RouteGuideRouteChatProcedure, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Grpc-Timeout", "300m")
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	sent := make(chan error, 1)
	go func() {
		_, err := write.Write(envelope(encoded))
		sent <- err
	}()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	ended := make(chan []byte, 1)
	go func() {
		got, _ := io.ReadAll(response.Body)
		ended <- got
	}()
	select {
	case got := <-ended:
		if !bytes.Equal(got, envelope(encoded)) {
			t.Errorf("got %x, want the note %x", got, envelope(encoded))
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the chat goes on after its deadline")
	}
	if status := response.Trailer.Get("Grpc-Status"); status != "4" {
		t.Errorf("got the status %q, %q, want 4 (DEADLINE_EXCEEDED)", status, response.Trailer.Get("Grpc-Message"))
	}
}

// envelope returns the length-prefixed message of gRPC, gRPC-Web and Connect streams.
func envelope(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// awaitDrained waits until all streams have ended.
func awaitDrained(t *testing.T, running *service.Service) {
	t.Helper()
	select {
	case <-running.Drained():
	case <-time.After(30 * time.Second):
		t.Fatal("streams are still open")
	}
}

// A drain without open streams is over at once, and new calls are still refused.
func TestDrainRefusesCallsWithNoStreamOpen(t *testing.T) {
	t.Parallel()
	url, running := start(t, memorystore.New())
	running.Drain()
	awaitDrained(t, running)
	client := dial(t, url)
	_, err := client.GetFeature(t.Context(), point(1, 1))
	checkCode(t, err, connect.CodeUnavailable)
	_, err = chatOf(t.Context(), client, note(1, "a"))
	checkCode(t, err, connect.CodeUnavailable)
}

// Drain lifts the rate limit: notes that have arrived are kept and answered without waiting for the token bucket.
func TestDrainLiftsRateLimit(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.NotesPerSecond = 1e-6 // The first note passes at once, and the next one after days.
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

// Drained is not closed before open streams have their replies.
func TestDrainWaitsForStreams(t *testing.T) {
	t.Parallel()
	store := &blockedStore{memorystore.New(), make(chan struct{})}
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
		t.Error("the drain ended before a note was kept")
	default:
	}
	close(store.unblock)
	if got, err := stream.Receive(); err != nil || got.GetMessage() != "a" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = stream.Receive()
	checkCode(t, err, connect.CodeUnavailable)
	awaitDrained(t, running)
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}

// A store that recovers during a shutdown must not make load balancers use the server again.
func TestHealthStaysNotServingAfterLeaveOrDrain(t *testing.T) {
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
			t.Errorf("Ready without a store: got %v, want the reason", err)
		}
		options.Health.SetStore(nil)
		if err := options.Health.Ready(); err != nil {
			t.Errorf("Ready before %s: %v", name, err)
		}
		leave(running, options.Health)
		options.Health.SetStore(nil)
		if options.Health.Ready() == nil {
			t.Errorf("health is SERVING after %s and a store that has recovered", name)
		}
	}
}

// MaxChatAge applies to a chat with a later deadline of its own.
func TestMaxChatAgeAppliesBeforeLaterDeadline(t *testing.T) {
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
	if !strings.Contains(err.Error(), "maximum age") {
		t.Errorf("the chat ended with %v", err)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}
