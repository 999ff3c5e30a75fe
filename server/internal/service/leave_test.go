package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/client/routechat"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/service"
)

// leaving returns a request to leave a note.
func leaving(longitude int32, text, id string) *routeguidev1.LeaveNoteRequest {
	return &routeguidev1.LeaveNoteRequest{Location: point(0, longitude), Text: text, Id: id}
}

// leave leaves a note, and checks that the response has it.
func leave(t *testing.T, client routeguidev1connect.NoteServiceClient, request *routeguidev1.LeaveNoteRequest) *routeguidev1.Note {
	t.Helper()
	response, err := client.LeaveNote(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	left := response.GetNote()
	want := &routeguidev1.Note{Location: request.GetLocation(), Text: request.GetText(), Id: request.GetId(), Position: left.GetPosition(), LeaveTime: left.GetLeaveTime()}
	if !proto.Equal(left, want) || left.GetPosition() == 0 {
		t.Errorf("got %v for %v", left, request)
	}
	return left
}

// checkLog fails the test unless the log of a location has notes with these texts.
func checkLog(t *testing.T, client *routechat.Client, longitude int32, want ...string) {
	t.Helper()
	got, err := chatOf(t.Context(), client, note(longitude, "a reader"))
	if want = append(want, "a reader"); err != nil || !slices.Equal(got, want) {
		t.Errorf("the log of longitude %d is %q, %v, want %q", longitude, got, err, want)
	}
}

// A note that was left is in the log that RouteChat returns, after those before it.
func TestLeaveNoteAppendsToLogOfRouteChat(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		if _, err := chatOf(t.Context(), client, note(1, "of a chat")); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		first := leave(t, client, leaving(1, "left", ""))
		second := leave(t, client, leaving(1, "left", ""))
		if first.GetPosition() >= second.GetPosition() {
			t.Errorf("positions %d and %d do not grow", first.GetPosition(), second.GetPosition())
		}
		if at := first.GetLeaveTime().AsTime(); at.Before(before) || at.After(time.Now()) {
			t.Errorf("the note was left at %v, want a time since %v", at, before)
		}
		leave(t, client, leaving(2, "elsewhere", ""))
		leave(t, client, leaving(1, "", ""))
		checkLog(t, client, 1, "of a chat", "left", "left", "")
		checkLog(t, client, 2, "elsewhere")
	})
}

// A call with the id, the location and the text of an earlier one returns its note.
func TestLeaveNoteIsIdempotentByID(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		first := leave(t, client, leaving(1, "once", "an id"))
		leave(t, client, leaving(1, "another", "another id"))
		for range 3 {
			if again := leave(t, client, leaving(1, "once", "an id")); !proto.Equal(again, first) {
				t.Errorf("got %v, want the first note %v", again, first)
			}
		}
		_, err := client.LeaveNote(t.Context(), leaving(1, "another text", "an id"))
		checkCode(t, err, connect.CodeAlreadyExists)
		leave(t, client, leaving(2, "another text", "an id"))
		checkLog(t, client, 1, "once", "another")
		checkLog(t, client, 2, "another text")
		// Unknown fields, as of a newer client, do not make another note of it.
		request := leaving(1, "once", "an id")
		request.Location.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 7))
		if response, err := client.LeaveNote(t.Context(), request); err != nil || !proto.Equal(response.GetNote(), first) {
			t.Errorf("with unknown fields: got %v, %v, want %v", response, err, first)
		}
	})
}

func TestLeaveNoteConcurrentlyWithOneID(t *testing.T) {
	t.Parallel()
	url, _ := start(t, memorystore.New())
	clients := []*routechat.Client{dial(t, url), dial(t, url, connect.WithGRPC()), dial(t, url, connect.WithGRPCWeb(), connect.WithProtoJSON())}
	const ids = 50
	left := make([][ids]*routeguidev1.Note, 2*len(clients))
	var leaving sync.WaitGroup
	for i := range left {
		leaving.Go(func() {
			for id := range ids {
				response, err := clients[i%len(clients)].LeaveNote(t.Context(),
					&routeguidev1.LeaveNoteRequest{Location: point(0, 1), Text: "text", Id: fmt.Sprint(id)})
				if err != nil {
					t.Error(err)
				}
				left[i][id] = response.GetNote()
			}
		})
	}
	leaving.Wait()
	for i := range left {
		for id := range ids {
			if !proto.Equal(left[i][id], left[0][id]) {
				t.Errorf("one call got %v, and another %v", left[0][id], left[i][id])
			}
		}
	}
	checkLog(t, clients[0], 1, slices.Repeat([]string{"text"}, ids)...)
}

// The response has the first note also when retention has deleted it.
func TestLeaveNoteIsIdempotentAfterRetention(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	url, _ := start(t, store)
	client := dial(t, url)
	first := leave(t, client, leaving(1, "once", "an id"))
	if count, err := store.Forget(t.Context(), notes.Now()); count != 1 || err != nil {
		t.Fatalf("%d notes were deleted, %v, want 1", count, err)
	}
	if again := leave(t, client, leaving(1, "once", "an id")); !proto.Equal(again, first) {
		t.Errorf("got %v, want the first note %v", again, first)
	}
	checkLog(t, client, 1)
}

func TestLeaveNoteRefusesInvalidRequest(t *testing.T) {
	t.Parallel()
	longestText, longestID := strings.Repeat("x", maxText), strings.Repeat("ä", notes.MaxID/2)
	url, running := startWith(t, bounded())
	for _, option := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON(), connect.WithSendGzip()} {
		client := dial(t, url, option)
		for _, test := range []struct {
			field   string
			request *routeguidev1.LeaveNoteRequest
		}{
			{"location", &routeguidev1.LeaveNoteRequest{Text: "where?"}},
			{"location.latitude", &routeguidev1.LeaveNoteRequest{Location: point(900000001, 0)}},
			{"location.longitude", &routeguidev1.LeaveNoteRequest{Location: point(0, -1800000001)}},
			{"text", leaving(1, longestText+"x", "")},
			{"id", leaving(1, "", longestID+"x")},
		} {
			_, err := client.LeaveNote(t.Context(), test.request)
			checkField(t, err, test.field)
		}
		_, err := client.LeaveNote(t.Context(), leaving(1, strings.Repeat("x", maxMessage), ""))
		checkCode(t, err, connect.CodeResourceExhausted)
		if received := running.Counts().Received; received != 0 {
			t.Errorf("%d notes were received, want none", received)
		}
	}
	// The longest values are valid, also in JSON with an escape for each byte.
	leave(t, dial(t, url), leaving(1, longestText, longestID))
	leave(t, dial(t, url, connect.WithProtoJSON()), leaving(1, strings.Repeat("\x01", maxText), longestID[2:]))
}

// JSON over HTTP/1.1, as curl sends it.
func TestLeaveNoteOverHTTP1(t *testing.T) {
	t.Parallel()
	url, _ := start(t, memorystore.New())
	post := func(body string) (status int, response map[string]any) {
		t.Helper()
		got, err := http.Post(url+routeguidev1connect.NoteServiceLeaveNoteProcedure, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		if got.ProtoMajor != 1 {
			t.Errorf("the response is %s", got.Proto)
		}
		if err := json.NewDecoder(got.Body).Decode(&response); err != nil {
			t.Fatal(err)
		}
		return got.StatusCode, response
	}
	defer http.DefaultClient.CloseIdleConnections()
	status, first := post(`{"location": {"longitude": 1}, "text": "hello", "id": "1"}`)
	note, _ := first["note"].(map[string]any)
	if status != http.StatusOK || note["text"] != "hello" {
		t.Errorf("got %d, %v", status, first)
	}
	if position, ok := note["position"].(string); !ok || position == "" {
		t.Errorf("the position is %v, want a string", note["position"])
	}
	if at, _ := note["leaveTime"].(string); !strings.HasSuffix(at, "Z") {
		t.Errorf("the time is %v", note["leaveTime"])
	}
	if status, again := post(`{"location": {"longitude": 1}, "text": "hello", "id": "1"}`); status != http.StatusOK || fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("again: got %d, %v, want %v", status, again, first)
	}
	if status, response := post(`{"location": {"longitude": 1}, "text": "bye", "id": "1"}`); status != http.StatusConflict || response["code"] != "already_exists" {
		t.Errorf("another text: got %d, %v", status, response)
	}
	if status, response := post(`{"text": "where?"}`); status != http.StatusBadRequest || response["code"] != "invalid_argument" {
		t.Errorf("no location: got %d, %v", status, response)
	}
}

// LeaveNote and RouteChat share the client's token bucket. LeaveNote does not wait for a token.
func TestNotesPerSecondRefusesLeaveNote(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.NotesPerSecond = 0.0001 // and a burst of one note
	url, _ := startWith(t, options)
	client := dial(t, url)
	leave(t, client, leaving(1, "the burst", ""))
	_, err := client.LeaveNote(t.Context(), leaving(1, "another", ""))
	checkCode(t, err, connect.CodeResourceExhausted)
	if err == nil || !strings.Contains(err.Error(), "backoff") {
		t.Errorf("the error is %v", err)
	}
}

// The client gets the code of a store error, and the log its details.
func TestLeaveNoteStoreErrorIsCountedAndLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	options := bounded()
	options.Chats.Store = fullStore{memorystore.New(), nil}
	options.Logger = slog.New(slog.NewTextHandler(&log, nil))
	url, running := startWith(t, options)
	_, err := dial(t, url).LeaveNote(t.Context(), leaving(1, "a text", "an id"))
	checkCode(t, err, connect.CodeResourceExhausted)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("the client gets %v", err)
	}
	if count := running.StoreErrors(); count != 1 {
		t.Errorf("%d calls were ended by the store, want 1", count)
	}
	if logged := log.String(); !strings.Contains(logged, "secret") || !strings.Contains(logged, "code=resource_exhausted") || strings.Contains(logged, "a text") {
		t.Errorf("the log is %s", logged)
	}
}

// After the client's deadline the note may still be kept. A repetition returns it.
func TestLeaveNoteAfterDeadlineIsRepeated(t *testing.T) {
	t.Parallel()
	store := &blockedStore{memorystore.New(), make(chan struct{})}
	url, _ := start(t, store)
	client := dial(t, url, connect.WithGRPC())
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := client.LeaveNote(ctx, leaving(1, "once", "an id"))
	checkCode(t, err, connect.CodeDeadlineExceeded)
	close(store.unblock)
	leave(t, client, leaving(1, "once", "an id"))
	leave(t, client, leaving(1, "once", "an id"))
	checkLog(t, client, 1, "once")
}

// A drain refuses new notes. A note that is on its way to the store is kept and answered.
func TestDrainAnswersLeaveNote(t *testing.T) {
	t.Parallel()
	store := &blockedStore{memorystore.New(), make(chan struct{})}
	options := service.Options{Chats: chat.Options{Store: store}, MaxCalls: 1}
	url, running := startWith(t, options)
	client := dial(t, url)
	type answer struct {
		response *routeguidev1.LeaveNoteResponse
		err      error
	}
	answered := make(chan answer, 1)
	go func() {
		response, err := client.LeaveNote(t.Context(), leaving(1, "on its way", ""))
		answered <- answer{response, err}
	}()
	for running.Counts().Received == 0 {
		time.Sleep(time.Millisecond)
	}
	// It is one of MaxCalls, and no chat.
	_, err := client.LeaveNote(t.Context(), leaving(1, "over the quota", ""))
	checkCode(t, err, connect.CodeResourceExhausted)
	running.Drain()
	close(store.unblock)
	if got := <-answered; got.err != nil || got.response.GetNote().GetText() != "on its way" {
		t.Errorf("got %v, %v", got.response, got.err)
	}
	for running.Calls() > 0 {
		time.Sleep(time.Millisecond)
	}
	_, err = client.LeaveNote(t.Context(), leaving(1, "too late", ""))
	checkCode(t, err, connect.CodeUnavailable)
}

// ArrivingBytes bounds the requests of LeaveNote that are longer than 4 KiB, until they are answered, in each protocol.
func TestArrivingBytesRefusesLeaveNote(t *testing.T) {
	t.Parallel()
	for contentType, body := range map[string][]byte{
		"application/json":     []byte(`{"text": "` + strings.Repeat("x", 60_000)),
		"application/proto":    protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.BytesType), 100_000),
		"application/grpc":     partialEnvelope(100_000, 60_000),
		"application/grpc-web": partialEnvelope(100_000, 60_000),
	} {
		t.Run(contentType, func(t *testing.T) {
			t.Parallel()
			body := append(body, make([]byte, 60_000-min(60_000, len(body)))...)
			options := bounded()
			options.ArrivingBytes = 150_000
			url, running := startWith(t, options)
			read, write := io.Pipe()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+routeguidev1connect.NoteServiceLeaveNoteProcedure, read)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", contentType)
			caller, half := newHTTP2(t), make(chan error, 1)
			go func() {
				response, err := caller.Do(request)
				if err == nil {
					err = response.Body.Close()
				}
				half <- err
			}()
			if _, err := write.Write(body); err != nil {
				t.Fatal(err)
			}
			for running.Arriving() < int64(len(body))-4<<10 {
				time.Sleep(time.Millisecond)
			}
			client := dial(t, url)
			for _, client := range []*routechat.Client{client, dial(t, url, connect.WithSendGzip())} {
				_, err = client.LeaveNote(t.Context(), leaving(1, strings.Repeat("x", 60_000), ""))
				checkCode(t, err, connect.CodeResourceExhausted)
			}
			leave(t, client, leaving(1, strings.Repeat("x", 4000), "")) // A short one needs no room.
			if err := errors.Join(write.Close(), <-half); err != nil {
				t.Fatal(err)
			}
			for running.Arriving() > 0 {
				time.Sleep(time.Millisecond)
			}
			leave(t, client, leaving(1, strings.Repeat("x", 60_000), ""))
		})
	}
}
