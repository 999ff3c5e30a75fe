package service_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/chat"
	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/service"
)

const (
	maxText    = 64 << 10
	maxMessage = 512 << 10
)

func bounded() service.Options {
	return service.Options{Chats: chat.Options{Store: notes.NewMemory(), MaxText: maxText}, MessageBytes: maxMessage}
}

func TestANoteIsAsLongAsItMayBe(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text    string
		unknown int
		code    connect.Code // 0 if it is taken
	}{
		"the longest":                  {strings.Repeat("x", maxText), 0, 0},
		"the longest, all escapes":     {strings.Repeat("\x01", maxText), 0, 0},
		"one byte longer":              {strings.Repeat("x", maxText+1), 0, connect.CodeInvalidArgument},
		"with some unknown fields":     {strings.Repeat("x", maxText), 900, 0},
		"with too many of them":        {"x", maxText + 1100, connect.CodeInvalidArgument},
		"longer than a message may be": {strings.Repeat("x", maxMessage), 0, connect.CodeResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := startWith(t, bounded())
			for codec, option := range map[string]connect.ClientOption{"binary": connect.WithGRPC(), "gzip": connect.WithSendGzip(), "JSON": connect.WithProtoJSON()} {
				if test.unknown > 0 && codec == "JSON" {
					continue // JSON has no place for them.
				}
				long := note(1, test.text)
				if test.unknown > 0 {
					long.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), make([]byte, test.unknown)))
				}
				_, err := chatOf(t.Context(), dial(t, url, option), note(2, "before"), long)
				if test.code == 0 && err != nil || test.code != 0 && connect.CodeOf(err) != test.code {
					t.Errorf("%s: got %v, want the code %v", codec, err, test.code)
				}
				if test.code == connect.CodeInvalidArgument {
					checkField(t, err, "message")
				}
			}
		})
	}
}

func TestTooManyChats(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.Chats.MaxChats = 1
	url, _ := startWith(t, options)
	client := dial(t, url)
	first, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Send(note(1, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Receive(); err != nil {
		t.Fatal(err)
	}
	_, err = chatOf(t.Context(), client, note(1, "b"))
	checkCode(t, err, connect.CodeResourceExhausted)
	_, _ = first.CloseRequest(), first.CloseResponse()
}

// never is a store that takes notes and settles none until it is let.
type never struct {
	notes.Store

	let chan struct{}
}

func (n *never) Append(ctx context.Context, at notes.Location, note notes.Note, ticket notes.Ticket) {
	go func() {
		<-n.let
		n.Store.Append(ctx, at, note, ticket)
	}()
}

func TestTheChatWithTheMostPendingRepliesIsEnded(t *testing.T) {
	t.Parallel()
	store := &never{notes.NewMemory(), make(chan struct{})}
	options := bounded()
	options.Chats.Store, options.Chats.MaxPendingInAll = store, 100
	url, running := startWith(t, options)
	client := dial(t, url)
	small, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := small.Send(note(1, "small")); err != nil {
		t.Fatal(err)
	}
	for running.Counts().Pending < 1 {
		time.Sleep(time.Millisecond)
	}
	large, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for large.Send(note(2, "large")) == nil {
		}
	}()
	for running.Counts().Shed == 0 {
		time.Sleep(time.Millisecond)
	}
	close(store.let)
	for err == nil {
		_, err = large.Receive()
	}
	if code := connect.CodeOf(err); code != connect.CodeResourceExhausted && code != connect.CodeUnknown {
		t.Errorf("the large chat: got %v", err)
	}
	if got, err := small.Receive(); err != nil || got.GetMessage() != "small" {
		t.Errorf("the small chat: got %v, %v", got, err)
	}
	for _, end := range []func() error{small.CloseRequest, small.CloseResponse, large.CloseRequest, large.CloseResponse} {
		_ = end()
	}
}

func TestAClientLeavesNotesAtItsPace(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.NotesPerSecond = 5
	url, _ := startWith(t, options)
	start := time.Now()
	sent := make([]*routeguide.RouteNote, 53) // Ten seconds' worth at once, and three more.
	for i := range sent {
		sent[i] = note(int32(i), "")
	}
	if got, err := chatOf(t.Context(), dial(t, url), sent...); err != nil || len(got) != len(sent) {
		t.Errorf("got %d replies, %v", len(got), err)
	}
	if took := time.Since(start); took < 500*time.Millisecond {
		t.Errorf("53 notes took %v at 5 a second", took)
	}
}

func TestARequestArrivesInTime(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.RequestTimeout = 100 * time.Millisecond
	url, _ := startWith(t, options)
	for _, major := range []int{1, 2} {
		var protocols http.Protocols
		protocols.SetHTTP1(major == 1)
		protocols.SetUnencryptedHTTP2(major == 2)
		transport := &http.Transport{Protocols: &protocols}
		body, write := io.Pipe()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+routeguideconnect.RouteGuideGetFeatureProcedure, body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		written := make(chan error, 1)
		go func() {
			_, err := write.Write([]byte(`{"latitude":`))
			written <- err
		}()
		response, err := transport.RoundTrip(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				t.Errorf("HTTP/%d: half a request is OK", major)
			}
		}
		_ = write.CloseWithError(errors.New("over"))
		<-written
		transport.CloseIdleConnections()
	}
	// A chat takes its time.
	client := dial(t, url)
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stream.Send(note(1, "a")); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(250 * time.Millisecond)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}

// broken panics when it is read.
type broken struct{ notes.Store }

func (broken) Range(context.Context, notes.Location, notes.Span) iter.Seq2[[]notes.Note, error] {
	panic("broken")
}

// careless panics when it is written.
type careless struct{ notes.Store }

func (careless) Append(context.Context, notes.Location, notes.Note, notes.Ticket) {
	panic("careless")
}

func TestAPanicEndsOneCall(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]notes.Store{"broken": broken{notes.NewMemory()}, "careless": careless{notes.NewMemory()}} {
		var log bytes.Buffer
		options := bounded()
		options.Chats.Store, options.Logger = store, slog.New(slog.NewTextHandler(&log, nil))
		url, running := startWith(t, options)
		client := dial(t, url)
		_, err := chatOf(t.Context(), client, note(1, "secret"))
		checkCode(t, err, connect.CodeInternal)
		if strings.Contains(err.Error(), name) {
			t.Errorf("the client is told %v", err)
		}
		if _, err := client.GetFeature(t.Context(), point(1, 1)); err != nil {
			t.Errorf("after a panic: %v", err)
		}
		running.Drain()
		<-running.Drained()
		if text := log.String(); running.Panics() != 1 || !strings.Contains(text, name) || !strings.Contains(text, "limits_test.go") || strings.Contains(text, "secret") {
			t.Errorf("%d panics, and in the log:\n%s", running.Panics(), text)
		}
	}
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
