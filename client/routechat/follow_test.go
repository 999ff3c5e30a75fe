package routechat_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
)

func ExampleClient_Follow() {
	// url is the URL of the server, such as http://localhost:50051.
	client, err := routechat.New(url)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	here := &routeguide.Point{Latitude: 407127002, Longitude: -740059002}
	if _, err := client.Leave(ctx, &routeguide.RouteNote{Location: here, Message: "Anyone here?"}); err != nil {
		log.Fatal(err)
	}

	var others sync.WaitGroup
	defer others.Wait()
	for event, err := range client.Follow(ctx, &routeguidev1.FollowNotesRequest{
		Filter: &routeguidev1.FollowNotesRequest_Location{Location: here},
	}) {
		if err != nil {
			log.Fatal(err)
		}
		if event.Lost != nil {
			log.Printf("%v; trying again in %v", event.Lost, event.RetryAfter)
		}
		for _, note := range event.Notes {
			fmt.Println(note.GetText())
			if note.GetText() == "I am." {
				return // Or cancel ctx.
			}
		}
		if event.Current {
			fmt.Println("Those were the notes so far.")
			others.Go(func() {
				if _, err := client.Leave(ctx, &routeguide.RouteNote{Location: here, Message: "I am."}); err != nil {
					log.Print(err)
				}
			})
		}
	}
	// Output:
	// Anyone here?
	// Those were the notes so far.
	// I am.
}

// A followCall handles a call of FollowNotes.
type followCall func(ctx context.Context, request *routeguidev1.FollowNotesRequest, send func(*routeguidev1.FollowNotesResponse)) error

// A scriptedService handles each call of FollowNotes with the next function: what a real server does only by chance.
type scriptedService struct {
	routeguidev1connect.UnimplementedNoteServiceHandler

	t *testing.T

	mu    sync.Mutex // guards calls
	calls []followCall
}

func (s *scriptedService) FollowNotes(ctx context.Context, request *routeguidev1.FollowNotesRequest, stream *connect.ServerStream[routeguidev1.FollowNotesResponse]) error {
	s.mu.Lock()
	if len(s.calls) == 0 {
		s.mu.Unlock()
		s.t.Error("there are more calls than expected")
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the script is over"))
	}
	call := s.calls[0]
	s.calls = s.calls[1:]
	s.mu.Unlock()
	return call(ctx, request, func(response *routeguidev1.FollowNotesResponse) {
		if err := stream.Send(response); err != nil {
			s.t.Error(err)
		}
	})
}

// serveScript serves calls of FollowNotes, one after the other.
func serveScript(t *testing.T, calls ...followCall) (url string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(routeguidev1connect.NewNoteServiceHandler(&scriptedService{t: t, calls: calls}))
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

var errBroken = connect.NewError(connect.CodeUnavailable, errors.New("broken"))

func note(latitude int32, position uint64) *routeguidev1.Note {
	return &routeguidev1.Note{Location: &routeguide.Point{Latitude: latitude}, Position: position}
}

// describe returns what an event has, but not the delay, which is random.
func describe(event routechat.Event) string {
	text := ""
	if event.Lost != nil {
		text += "lost "
	}
	if event.Reset {
		text += "reset "
	}
	for _, note := range event.Notes {
		text += fmt.Sprintf("%d:%d ", note.GetLocation().GetLatitude(), note.GetPosition())
	}
	if event.Current {
		text += "current "
	}
	if len(event.Cursor) > 0 {
		text += "@" + string(event.Cursor)
	}
	return text
}

// followScript follows a rectangle at a server of these calls, of which the last one must return INVALID_ARGUMENT, and returns
// the events.
func followScript(t *testing.T, calls ...followCall) (events []string) {
	t.Helper()
	for event, err := range dial(t, serveScript(t, calls...)).Follow(t.Context(), &routeguidev1.FollowNotesRequest{
		Filter: &routeguidev1.FollowNotesRequest_Rectangle{Rectangle: &routeguide.Rectangle{}},
	}) {
		if err != nil {
			if connect.CodeOf(err) != connect.CodeInvalidArgument {
				t.Error(err)
			}
			break
		}
		events = append(events, describe(event))
	}
	return events
}

// end is the last call of a script.
func end(t *testing.T, wantCursor string) followCall {
	t.Helper()
	return func(_ context.Context, request *routeguidev1.FollowNotesRequest, _ func(*routeguidev1.FollowNotesResponse)) error {
		if got := string(request.GetCursor()); got != wantCursor || request.GetRectangle() == nil {
			t.Errorf("the last call is %v, want cursor %q", request, wantCursor)
		}
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the end"))
	}
}

func TestFollowResumesAtLastCursor(t *testing.T) {
	t.Parallel()
	got := followScript(t,
		func(_ context.Context, request *routeguidev1.FollowNotesRequest, send func(*routeguidev1.FollowNotesResponse)) error {
			if len(request.GetCursor()) > 0 {
				t.Errorf("the first call has cursor %q", request.GetCursor())
			}
			send(&routeguidev1.FollowNotesResponse{Cursor: []byte("a")})
			send(&routeguidev1.FollowNotesResponse{Notes: []*routeguidev1.Note{note(1, 5), note(2, 5)}, Current: true, Cursor: []byte("b")})
			send(&routeguidev1.FollowNotesResponse{Notes: []*routeguidev1.Note{note(2, 6), note(2, 8)}})
			return errBroken
		},
		func(_ context.Context, request *routeguidev1.FollowNotesRequest, send func(*routeguidev1.FollowNotesResponse)) error {
			if got := string(request.GetCursor()); got != "b" {
				t.Errorf("the second call has cursor %q, want b", got)
			}
			// All but the last one have come before.
			send(&routeguidev1.FollowNotesResponse{Notes: []*routeguidev1.Note{note(1, 5), note(2, 6), note(2, 8), note(1, 7)}, Current: true, Cursor: []byte("c")})
			return nil // A stream that ends is as broken as one with an error.
		},
		end(t, "c"),
	)
	if want := []string{"@a", "1:5 2:5 current @b", "2:6 2:8 ", "lost ", "1:7 current @c", "lost "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// After a reset, positions may begin again.
func TestFollowReset(t *testing.T) {
	t.Parallel()
	got := followScript(t,
		func(_ context.Context, _ *routeguidev1.FollowNotesRequest, send func(*routeguidev1.FollowNotesResponse)) error {
			send(&routeguidev1.FollowNotesResponse{Notes: []*routeguidev1.Note{note(1, 5)}, Cursor: []byte("a")})
			send(&routeguidev1.FollowNotesResponse{Reset_: true, Notes: []*routeguidev1.Note{note(1, 3), note(1, 3)}})
			return errBroken
		},
		end(t, "a"),
	)
	if want := []string{"1:5 @a", "reset 1:3 ", "lost "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Without a cursor there is no way to continue, and the caller gets to know.
func TestFollowResetsWithoutCursor(t *testing.T) {
	t.Parallel()
	got := followScript(t,
		func(context.Context, *routeguidev1.FollowNotesRequest, func(*routeguidev1.FollowNotesResponse)) error {
			return errBroken // Nothing was heard that could be incomplete.
		},
		func(_ context.Context, _ *routeguidev1.FollowNotesRequest, send func(*routeguidev1.FollowNotesResponse)) error {
			send(&routeguidev1.FollowNotesResponse{Notes: []*routeguidev1.Note{note(1, 5)}})
			return errBroken
		},
		func(_ context.Context, _ *routeguidev1.FollowNotesRequest, send func(*routeguidev1.FollowNotesResponse)) error {
			send(&routeguidev1.FollowNotesResponse{Notes: []*routeguidev1.Note{note(1, 5)}})
			send(&routeguidev1.FollowNotesResponse{Current: true})
			return errBroken
		},
		end(t, ""),
	)
	if want := []string{"lost ", "1:5 ", "lost ", "reset 1:5 ", "current ", "lost "}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFollowStopsOnlyWhereRetriesAreVain(t *testing.T) {
	t.Parallel()
	final := []connect.Code{
		connect.CodeInvalidArgument, connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeUnimplemented,
	}
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			fails := func(context.Context, *routeguidev1.FollowNotesRequest, func(*routeguidev1.FollowNotesResponse)) error {
				return connect.NewError(code, errors.New("the first attempt fails"))
			}
			for event, err := range dial(t, serveScript(t, fails)).Follow(t.Context(), &routeguidev1.FollowNotesRequest{}) {
				if slices.Contains(final, code) {
					if connect.CodeOf(err) != code {
						t.Errorf("got %v, want the error", err)
					}
				} else if err != nil || connect.CodeOf(event.Lost) != code {
					t.Errorf("got %v, %v, want a retry", event, err)
				}
				break
			}
		})
	}
}

// RESOURCE_EXHAUSTED passes, but a rectangle with too many locations does not become smaller.
func TestFollowStopsAtTooManyLocations(t *testing.T) {
	t.Parallel()
	fails := func(context.Context, *routeguidev1.FollowNotesRequest, func(*routeguidev1.FollowNotesResponse)) error {
		err := connect.NewError(connect.CodeResourceExhausted, errors.New("too many locations"))
		detail, failed := connect.NewErrorDetail(&errdetails.ErrorInfo{Reason: "TOO_MANY_LOCATIONS"})
		if failed != nil {
			t.Error(failed)
		}
		err.AddDetail(detail)
		return err
	}
	for event, err := range dial(t, serveScript(t, fails)).Follow(t.Context(), &routeguidev1.FollowNotesRequest{}) {
		if connect.CodeOf(err) != connect.CodeResourceExhausted || event.Lost != nil {
			t.Errorf("got %v, %v, want the error", event, err)
		}
		break
	}
}

func TestFollowStopsAtInvalidCertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	for event, err := range dial(t, server.URL).Follow(t.Context(), &routeguidev1.FollowNotesRequest{}) {
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
			t.Errorf("got %v, %v, want the error of the certificate", event, err)
		}
		break
	}
}

// The call ends when the caller leaves the loop.
func TestFollowCancelsCall(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	url := serveScript(t, func(ctx context.Context, _ *routeguidev1.FollowNotesRequest, send func(*routeguidev1.FollowNotesResponse)) error {
		defer close(ended)
		send(&routeguidev1.FollowNotesResponse{Current: true})
		<-ctx.Done()
		return ctx.Err()
	})
	for _, err := range dial(t, url).Follow(t.Context(), &routeguidev1.FollowNotesRequest{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	<-ended
}

// The error at the end of the context has that of the last attempt only if the connection is lost.
func TestFollowUntilContextEnds(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		url := serveScript(t,
			func(context.Context, *routeguidev1.FollowNotesRequest, func(*routeguidev1.FollowNotesResponse)) error {
				return errBroken
			},
			func(ctx context.Context, _ *routeguidev1.FollowNotesRequest, send func(*routeguidev1.FollowNotesResponse)) error {
				send(&routeguidev1.FollowNotesResponse{Current: true})
				<-ctx.Done()
				return ctx.Err()
			})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for event, err := range dial(t, url).Follow(ctx, &routeguidev1.FollowNotesRequest{}) {
			if event.Current || lost {
				cancel()
			}
			last = err
		}
		if connect.CodeOf(last) != connect.CodeCanceled || !errors.Is(last, context.Canceled) || strings.Contains(last.Error(), "broken") != lost {
			t.Errorf("got %v, want CANCELED, and the error of the last attempt: %v", last, lost)
		}
	}
}

// unconnected returns an option for a client without a server: each call receives from receive.
func unconnected(receive func(ctx context.Context, response *routeguidev1.FollowNotesResponse) error) connect.ClientOption {
	return connect.WithInterceptors(streamInterceptor(func(ctx context.Context, _ connect.Spec) connect.StreamingClientConn {
		return &unconnectedStream{receive: func(response *routeguidev1.FollowNotesResponse) error { return receive(ctx, response) }}
	}))
}

// A streamInterceptor makes the streams of a client.
type streamInterceptor connect.StreamingClientFunc

func (streamInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (i streamInterceptor) WrapStreamingClient(connect.StreamingClientFunc) connect.StreamingClientFunc {
	return connect.StreamingClientFunc(i)
}

func (streamInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type unconnectedStream struct {
	connect.StreamingClientConn // nil: what is missing is not called

	receive func(response *routeguidev1.FollowNotesResponse) error
}

func (*unconnectedStream) Peer() connect.Peer         { return connect.Peer{} }
func (*unconnectedStream) Spec() connect.Spec         { return connect.Spec{} }
func (*unconnectedStream) RequestHeader() http.Header { return http.Header{} }
func (*unconnectedStream) Send(any) error             { return nil }
func (*unconnectedStream) CloseRequest() error        { return nil }
func (*unconnectedStream) CloseResponse() error       { return nil }
func (s *unconnectedStream) Receive(response any) error {
	return s.receive(response.(*routeguidev1.FollowNotesResponse))
}

// The bound of the delay doubles from half a second to 20 seconds, and the delay is random below it. A call that becomes
// current resets it, and one that does not get that far does not.
func TestFollowBackoff(t *testing.T) {
	t.Parallel()
	for _, current := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var at []time.Time
			received := true
			client := dial(t, "http://unused", unconnected(func(_ context.Context, response *routeguidev1.FollowNotesResponse) error {
				if received = !received; received {
					return errBroken
				}
				at = append(at, time.Now())
				response.Current = current
				return nil
			}))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			var last error
			for event, err := range client.Follow(ctx, &routeguidev1.FollowNotesRequest{}) {
				last = err
				if event.RetryAfter > 0 && event.Lost == nil {
					t.Error("a delay without a cause")
				}
			}
			if connect.CodeOf(last) != connect.CodeDeadlineExceeded {
				t.Errorf("got %v", last)
			}
			longest := time.Duration(0)
			for i := range len(at) - 1 {
				delay, bound := at[i+1].Sub(at[i]), 500*time.Millisecond
				if !current {
					bound = min(20*time.Second, bound<<min(i, 10))
				}
				if delay >= bound {
					t.Errorf("delay %d is %v, want less than %v", i+1, delay, bound)
				}
				longest = max(longest, delay)
			}
			// On average, 360 calls with delays below 20 s, or 14,400 with those below half a second.
			if !current && (len(at) < 200 || len(at) > 600 || longest < 15*time.Second) || current && len(at) < 10_000 {
				t.Errorf("%d calls in an hour, the longest delay %v", len(at), longest)
			}
		})
	}
}

// A call that brings nothing for 45 seconds is given up, but not while the caller handles an event.
func TestFollowGivesUpSilentCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		responses := 0
		client := dial(t, "http://unused", unconnected(func(ctx context.Context, _ *routeguidev1.FollowNotesResponse) error {
			if responses++; responses == 4 {
				<-ctx.Done()
				return connect.NewError(connect.CodeCanceled, ctx.Err())
			}
			time.Sleep(44 * time.Second)
			return nil
		}))
		start := time.Now()
		for event, err := range client.Follow(t.Context(), &routeguidev1.FollowNotesRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			if event.Lost != nil {
				const want = (3*44 + 3*60 + 45) * time.Second
				if got := time.Since(start); got != want || connect.CodeOf(event.Lost) != connect.CodeUnavailable {
					t.Errorf("lost after %v with %v, want %v and UNAVAILABLE", got, event.Lost, want)
				}
				break
			}
			time.Sleep(time.Minute)
		}
	})
}
