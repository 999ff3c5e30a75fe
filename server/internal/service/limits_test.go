package service_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/service"
)

const (
	maxText    = 64 << 10
	maxMessage = 512 << 10
)

func bounded() service.Options {
	return service.Options{Chats: chat.Options{Store: memorystore.New(), MaxText: maxText}, MessageBytes: maxMessage}
}

// MaxText bounds the text and the unknown fields of a note, and MessageBytes the whole message, in each codec.
func TestMaxTextAndMessageBytesBoundNotes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text    string
		unknown int
		code    connect.Code // 0 if the note is accepted
	}{
		"the longest":              {strings.Repeat("x", maxText), 0, 0},
		"the longest, all escapes": {strings.Repeat("\x01", maxText), 0, 0},
		"one byte longer":          {strings.Repeat("x", maxText+1), 0, connect.CodeInvalidArgument},
		"some unknown fields":      {strings.Repeat("x", maxText), 900, 0},
		"too many unknown fields":  {"x", maxText + 1100, connect.CodeInvalidArgument},
		"longer than MessageBytes": {strings.Repeat("x", maxMessage), 0, connect.CodeResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := startWith(t, bounded())
			for codec, option := range map[string]connect.ClientOption{"binary": connect.WithGRPC(), "gzip": connect.WithSendGzip(), "JSON": connect.WithProtoJSON()} {
				if test.unknown > 0 && codec == "JSON" {
					continue // JSON cannot encode unknown fields.
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

// blockedStore is a store that settles no note until unblock is closed.
type blockedStore struct {
	notes.Store

	unblock chan struct{}
}

func (s *blockedStore) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	go func() {
		<-s.unblock
		s.Store.Append(ctx, location, note, ticket)
	}()
}

// Over MaxPendingInAll, the chat with the most pending replies is ended, and others go on.
func TestMaxPendingInAllEndsLargestChat(t *testing.T) {
	t.Parallel()
	store := &blockedStore{memorystore.New(), make(chan struct{})}
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
	close(store.unblock)
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

// The chat with the most pending replies is ended even if its client is a slow consumer, which does not read
// the error.
func TestMaxPendingInAllEndsChatOfSlowConsumer(t *testing.T) {
	t.Parallel()
	nativeOnly(t, "on net/http a client that does not read its replies blocks before its chat is ended")
	options := bounded()
	options.Chats.MaxPendingInAll = 1000
	url, running := startWith(t, options)
	stream, err := dialNarrow(t, url).RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		err = stream.Send(note(1, strings.Repeat("x", 1000)))
	}
	if counts := running.Counts(); counts.Shed != 1 || counts.Pending != 0 {
		t.Errorf("%d chats were ended, and %d replies are pending, want 1 and none", counts.Shed, counts.Pending)
	}
	for err = nil; err == nil; {
		_, err = stream.Receive()
	}
	if errors.Is(err, io.EOF) {
		t.Error("the chat ended without an error")
	}
	_ = stream.CloseResponse()
}

// NotesPerSecond is the rate of a token bucket with a burst of ten seconds' worth.
func TestNotesPerSecondLimitsRateOfClient(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.NotesPerSecond = 5
	url, _ := startWith(t, options)
	start := time.Now()
	sent := make([]*routeguide.RouteNote, 53) // The burst, and three more.
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
