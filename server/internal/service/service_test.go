package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/httpserver"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/notes/notestest"
	"example.com/routeguide/server/internal/service"
)

// netHTTP is whether the tests run on net/http's HTTP/2 server, as those of the command do with the same variable.
var netHTTP = os.Getenv("ROUTEGUIDE_HTTP2") == "net/http"

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// nativeOnly leaves out a test of what net/http's HTTP/2 server cannot do.
func nativeOnly(t *testing.T, reason string) {
	t.Helper()
	if netHTTP {
		t.Skip("native only: " + reason)
	}
}

// start serves RouteGuide with a store until the end of the test.
func start(t *testing.T, store notes.Store) (url string, running *service.Service) {
	t.Helper()
	return startFor(t, store)
}

func startFor(t testing.TB, store notes.Store) (url string, running *service.Service) {
	t.Helper()
	return startWith(t, service.Options{Chats: chat.Options{Store: store}})
}

func startWith(t testing.TB, options service.Options) (url string, running *service.Service) {
	t.Helper()
	features, err := guide.Default()
	if err != nil {
		t.Fatal(err)
	}
	running = service.New(guide.New(features), options)
	server, err := httpserver.Listen(context.Background(), "127.0.0.1:0", running, httpserver.Options{NetHTTP: netHTTP, MaxStreams: 1000})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	t.Cleanup(func() {
		timeout, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := errors.Join(server.Shutdown(timeout), <-served, options.Chats.Store.Close()); err != nil {
			t.Error(err)
		}
		running.Close()
	})
	return "http://" + server.Addr().String(), running
}

func dial(t *testing.T, url string, options ...connect.ClientOption) *routechat.Client {
	t.Helper()
	client, err := routechat.New(url, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// dialNarrow is dial for a client with flow-control windows as small as grpc-go's.
func dialNarrow(t *testing.T, url string) routeguideconnect.RouteGuideClient {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
	t.Cleanup(transport.CloseIdleConnections)
	return routeguideconnect.NewRouteGuideClient(&http.Client{Transport: transport}, url, connect.WithGRPC())
}

// openChat opens a chat, sends a note and receives its reply.
func openChat(t *testing.T, client *routechat.Client) *connect.BidiStreamForClientSimple[routeguide.RouteNote, routeguide.RouteNote] {
	t.Helper()
	chat, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := chat.Send(note(1, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := chat.Receive(); err != nil {
		t.Fatal(err)
	}
	return chat
}

// inEachProtocol runs a test with a client of each protocol and codec, each with a server of its own.
func inEachProtocol(t *testing.T, test func(*testing.T, *routechat.Client)) {
	t.Helper()
	for protocol, protocolOption := range map[string]connect.ClientOption{
		"connect": connect.WithClientOptions(),
		"grpc":    connect.WithGRPC(),
		"grpcweb": connect.WithGRPCWeb(),
	} {
		for codec, codecOption := range map[string]connect.ClientOption{
			"proto": connect.WithClientOptions(),
			"json":  connect.WithProtoJSON(),
		} {
			t.Run(protocol+" "+codec, func(t *testing.T) {
				t.Parallel()
				url, _ := start(t, memorystore.New())
				test(t, dial(t, url, protocolOption, codecOption))
			})
		}
	}
}

func point(latitude, longitude int32) *routeguide.Point {
	return &routeguide.Point{Latitude: latitude, Longitude: longitude}
}

func note(longitude int32, message string) *routeguide.RouteNote {
	return &routeguide.RouteNote{Location: point(0, longitude), Message: message}
}

func checkCode(t *testing.T, err error, want connect.Code) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != want {
		t.Errorf("got the error %v, want one with the code %v", err, want)
	}
}

// checkField fails unless the error is INVALID_ARGUMENT with a BadRequest detail for field.
func checkField(t *testing.T, err error, field string) {
	t.Helper()
	checkCode(t, err, connect.CodeInvalidArgument)
	if bad, ok := detailOf[*errdetails.BadRequest](err); !ok || bad.GetFieldViolations()[0].GetField() != field {
		t.Errorf("%v has no BadRequest detail that names %s", err, field)
	}
}

// detailOf returns the first detail of an error with a type.
func detailOf[Detail proto.Message](err error) (detail Detail, ok bool) {
	if coded, isCoded := errors.AsType[*connect.Error](err); isCoded {
		for _, each := range coded.Details() {
			if message, err := each.Value(); err == nil {
				if detail, ok = message.(Detail); ok {
					return detail, true
				}
			}
		}
	}
	return detail, false
}

func TestGetFeature(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		location := point(409146138, -746188906)
		feature, err := client.GetFeature(t.Context(), location)
		if err != nil {
			t.Fatal(err)
		}
		want := &routeguide.Feature{Name: "Berkshire Valley Management Area Trail, Jefferson, NJ, USA", Location: location}
		if !proto.Equal(feature, want) {
			t.Errorf("got %v, want %v", feature, want)
		}
		feature, err = client.GetFeature(t.Context(), &routeguide.Point{})
		if err != nil {
			t.Fatal(err)
		}
		if want := (&routeguide.Feature{Location: &routeguide.Point{}}); !proto.Equal(feature, want) {
			t.Errorf("got %v where there is no feature, want %v", feature, want)
		}
		_, err = client.GetFeature(t.Context(), point(900000001, 0))
		checkField(t, err, "latitude")
	})
}

func TestGetFeatureByHTTPGet(t *testing.T) {
	t.Parallel()
	url, _ := start(t, memorystore.New())
	feature, err := dial(t, url, connect.WithHTTPGet()).GetFeature(t.Context(), point(409146138, -746188906))
	if err != nil || feature.GetName() == "" {
		t.Errorf("got %v, %v", feature, err)
	}
}

func TestListFeatures(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		list := func(rectangle *routeguide.Rectangle) (count int, err error) {
			stream, err := client.ListFeatures(t.Context(), rectangle)
			if err != nil {
				return 0, err
			}
			for stream.Receive() {
				count++
			}
			return count, errors.Join(stream.Err(), stream.Close())
		}
		count, err := list(&routeguide.Rectangle{Lo: point(400000000, -750000000), Hi: point(420000000, -730000000)})
		if err != nil || count < 100 {
			t.Errorf("got %d features, %v, want a few hundred", count, err)
		}
		if count, err := list(&routeguide.Rectangle{Lo: point(1, 1), Hi: point(2, 2)}); err != nil || count != 0 {
			t.Errorf("got %d features, %v, want none", count, err)
		}
		_, err = list(&routeguide.Rectangle{Lo: point(1, 1)})
		checkField(t, err, "hi")
	})
}

func TestRecordRoute(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		record := func(points ...*routeguide.Point) (*routeguide.RouteSummary, error) {
			stream, err := client.RecordRoute(t.Context())
			if err != nil {
				return nil, err
			}
			for _, point := range points {
				if err := stream.Send(point); err != nil && !errors.Is(err, io.EOF) {
					return nil, err
				}
			}
			return stream.CloseAndReceive()
		}
		summary, err := record(point(409146138, -746188906), point(0, 0), &routeguide.Point{}, point(10000000, 0))
		if err != nil {
			t.Fatal(err)
		}
		if summary.GetPointCount() != 4 || summary.GetFeatureCount() != 1 || summary.GetDistance() < 8_000_000 {
			t.Errorf("got %v", summary)
		}
		if summary, err := record(); err != nil || !proto.Equal(summary, &routeguide.RouteSummary{}) {
			t.Errorf("got %v, %v for a route without points", summary, err)
		}
		_, err = record(point(0, 0), point(0, 1800000001))
		checkField(t, err, "longitude")
	})
}

// chatOf sends notes, closes the request, and returns the texts of the replies.
func chatOf(ctx context.Context, client *routechat.Client, sent ...*routeguide.RouteNote) ([]string, error) {
	stream, err := client.RouteChat(ctx)
	if err != nil {
		return nil, err
	}
	for _, note := range sent {
		if err := stream.Send(note); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	if err := stream.CloseRequest(); err != nil {
		return nil, err
	}
	var texts []string
	for {
		note, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return texts, stream.CloseResponse()
		}
		if err != nil {
			_ = stream.CloseResponse()
			return texts, err
		}
		texts = append(texts, note.GetMessage())
	}
}

func TestRouteChatOfTheTutorial(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		got, err := chatOf(t.Context(), client,
			note(1, "1"), note(2, "2"), note(3, "3"), note(1, "4"), note(2, "5"), note(3, "6"))
		if want := []string{"1", "2", "3", "1", "4", "2", "5", "3", "6"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	})
}

func TestRouteChatRepliesBeforeTheNextNote(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		stream, err := client.RouteChat(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if err := stream.Send(note(int32(i), "hello")); err != nil {
				t.Fatal(err)
			}
			reply, err := stream.Receive()
			if err != nil || !proto.Equal(reply, note(int32(i), "hello")) {
				t.Fatalf("got %v, %v", reply, err)
			}
		}
		if err := stream.CloseRequest(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want io.EOF", err)
		}
		if err := stream.CloseResponse(); err != nil {
			t.Error(err)
		}
	})
}

// Notes before an invalid one are kept and answered. The invalid note and those after it are not kept.
func TestRouteChatAnswersNotesBeforeInvalidNote(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		got, err := chatOf(t.Context(), client,
			note(1, "a"), note(1, "b"), &routeguide.RouteNote{Message: "where?"}, note(1, "c"))
		if want := []string{"a", "a", "b"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		checkField(t, err, "location")
		got, err = chatOf(t.Context(), client, note(1, "d"), note(1800000001, "too far"))
		if want := []string{"a", "b", "d"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v: the invalid note and those after it must not be kept", got, want)
		}
		checkField(t, err, "location.longitude")
	})
}

// The server reads all notes of a client that writes as many as may be pending before it reads a reply, with
// flow-control windows as small as grpc-go's. The stock RouteGuide server blocks after 20,000.
func TestRouteChatTakesEverythingBeforeAnythingIsRead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	nativeOnly(t, "on net/http a client that does not read its replies blocks once its window is full")
	const count = 250_000
	url, _ := start(t, memorystore.New())
	stream, err := dialNarrow(t, url).RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const text = "a note that is as long as notes are"
	for i := range count {
		if err := stream.Send(note(int32(i), text)); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			runtime.Gosched() // Let the server reach its limits while the client still writes.
		}
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		if got, err := stream.Receive(); err != nil || !proto.Equal(got, note(int32(i), text)) {
			t.Fatalf("reply %d is %v, %v", i, got, err)
		}
	}
	if err := stream.CloseResponse(); err != nil {
		t.Error(err)
	}
}

func TestRouteChatKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	url, _ := start(t, memorystore.New())
	sent := note(1, "from the future")
	sent.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 7))
	stream, err := dial(t, url).RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.Send(sent), stream.CloseRequest()); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Receive()
	if err != nil || !proto.Equal(got, sent) {
		t.Errorf("got %v, %v, want %v", got, err, sent)
	}
	if err := stream.CloseResponse(); err != nil {
		t.Error(err)
	}
}

// fullStore is a store with space for a number of notes.
type fullStore struct {
	notes.Store

	space chan struct{} // one element per note
}

func (f fullStore) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	select {
	case <-f.space:
		f.Store.Append(ctx, location, note, ticket)
	default:
		ticket.Settle(notes.Receipt{}, fmt.Errorf("%w: secret", notes.ErrNoRoom))
	}
}

// A store error ends a chat after the replies to the notes that were kept, without details for the client.
func TestRouteChatEndsWithStoreErrorAfterReplies(t *testing.T) {
	t.Parallel()
	store := fullStore{memorystore.New(), make(chan struct{}, 2)}
	store.space <- struct{}{}
	store.space <- struct{}{}
	url, _ := start(t, store)
	stream, err := dial(t, url).RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The client does not close the request: the error must not wait for that.
	for _, text := range []string{"a", "b", "c"} {
		if err := stream.Send(note(int32(text[0]), text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a", "b"} {
		if got, err := stream.Receive(); err != nil || got.GetMessage() != want {
			t.Fatalf("got %v, %v, want %s", got, err, want)
		}
	}
	_, err = stream.Receive()
	checkCode(t, err, connect.CodeResourceExhausted)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the client gets %v", err)
	}
	_ = stream.CloseResponse()
}

// A chat whose note is deleted by retention before its reply was sent ends with ABORTED.
func TestRouteChatEndsWithAbortedOnceItsNoteIsForgotten(t *testing.T) {
	t.Parallel()
	url, _ := start(t, notestest.Forgetful{Store: memorystore.New()})
	client := dial(t, url)
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.CloseResponse()
	if err := stream.Send(note(1, "a")); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Receive()
	checkCode(t, err, connect.CodeAborted)
}
