package service_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/internal/rawhttp2"
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
	options.MaxChats = 1
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

// rawChat begins a chat by hand and sends some bytes of it. It returns the code that the server ends the chat with, as
// gRPC numbers it.
func rawChat(ctx context.Context, url, contentType string, sent []byte) (string, error) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	body, write := io.Pipe()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+routeguideconnect.RouteGuideRouteChatProcedure, body)
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", contentType)
	var writing sync.WaitGroup
	writing.Go(func() { _, _ = write.Write(sent) }) // An error says that the chat has ended.
	defer writing.Wait()
	defer write.Close()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(contentType, "application/grpc") {
		return response.Header.Get("Grpc-Status") + response.Trailer.Get("Grpc-Status"), nil
	}
	var end struct{ Error struct{ Code connect.Code } }
	if err := json.Unmarshal(answer[5:], &end); err != nil {
		return "", fmt.Errorf("%q: %w", answer, err)
	}
	return strconv.Itoa(int(end.Error.Code)), nil
}

// started returns the prefix of a message of some length, and some bytes of it.
func started(length uint32, some int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, length), make([]byte, some)...)
}

func TestAMessageArrivesInTime(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.RequestTimeout = 100 * time.Millisecond
	url, _ := startWith(t, options)
	for _, contentType := range []string{"application/grpc", "application/connect+proto", "application/connect+json"} {
		for _, length := range []uint32{100, 100_000} {
			if code, err := rawChat(t.Context(), url, contentType, started(length, 50)); code != "4" || err != nil {
				t.Errorf("%s: a message of %d bytes that stops after 50 ends with %s, %v, want DEADLINE_EXCEEDED", contentType, length, code, err)
			}
		}
	}
	// There may be silence between messages.
	options.RequestTimeout = 2 * time.Second // A long message takes a while on a busy machine.
	url, _ = startWith(t, options)
	client := dial(t, url)
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a", strings.Repeat("x", 60_000), "b"} {
		if err := stream.Send(note(1, text)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	for range 1 + 2 + 3 {
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
	}
	_ = stream.CloseResponse()
}

func TestAMessageThatIsTooLongIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	url, _ := startWith(t, bounded())
	for _, contentType := range []string{"application/grpc", "application/connect+json"} {
		if code, err := rawChat(t.Context(), url, contentType, started(1<<32-1, 10)); code != "8" || err != nil {
			t.Errorf("%s: 4 GiB that have begun end with %s, %v, want RESOURCE_EXHAUSTED", contentType, code, err)
		}
	}
}

func TestOnlySoMuchMayBeOnItsWay(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.ArrivingBytes = 150_000
	url, running := startWith(t, options)
	ctx, cancel := context.WithCancel(t.Context())
	var half sync.WaitGroup
	half.Go(func() { _, _ = rawChat(ctx, url, "application/grpc", started(100_000, 50_000)) })
	for running.Arriving() == 0 {
		time.Sleep(time.Millisecond)
	}
	code, err := rawChat(t.Context(), url, "application/grpc", started(100_000, 50_000))
	if code != "8" || err != nil {
		t.Errorf("a second long message ends with %s, %v, want RESOURCE_EXHAUSTED", code, err)
	}
	client := dial(t, url)
	if _, err := chatOf(t.Context(), client, note(2, "a short one")); err != nil {
		t.Errorf("a short note meanwhile: %v", err)
	}
	cancel()
	half.Wait()
	for running.Arriving() > 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := chatOf(t.Context(), client, note(2, strings.Repeat("x", 60_000))); err != nil {
		t.Errorf("a long note afterwards: %v", err)
	}
}

func TestTooManyCalls(t *testing.T) {
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

// A call counts until its client has taken the answer.
func TestACallCountsUntilItsAnswerIsTaken(t *testing.T) {
	t.Parallel()
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

func TestAClientHasItsShare(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.MaxChats, options.ClientShare = 4, 0.25
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
	if err == nil || !strings.Contains(err.Error(), "of one client") {
		t.Errorf("the error is %v", err)
	}
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

// The chat that has the most pending replies cannot be told so, if its client does not read.
func TestAChatWhoseClientDoesNotReadIsEndedToo(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.Chats.MaxPendingInAll = 1000
	url, running := startWith(t, options)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
	defer transport.CloseIdleConnections()
	stream, err := routeguideconnect.NewRouteGuideClient(&http.Client{Transport: transport}, url, connect.WithGRPC()).RouteChat(t.Context())
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
		t.Error("the chat ended well")
	}
	_ = stream.CloseResponse()
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
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+routeguideconnect.RouteGuideGetFeatureProcedure, body)
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
	// Nor is one waited for that nobody reads.
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 404 ") {
		t.Errorf("half a request to nowhere: got %.20q, %v", answer, err)
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
