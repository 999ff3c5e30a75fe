package routechat_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/process"
)

func ExampleClient_Leave() {
	// url is the URL of the server, such as http://localhost:50051.
	client, err := routechat.New(url)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	// Retry for a minute, if there is no connection or the server restarts.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	note, err := client.Leave(ctx, &routeguide.RouteNote{
		Location: &routeguide.Point{Latitude: 407127001, Longitude: -740059001},
		Message:  "I was here.",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(note.GetText(), note.GetPosition() > 0, note.GetLeaveTime().IsValid())
	// Output:
	// I was here. true true
}

// attempts returns an option for a client that passes the number of each unary call, from 1 on, and a function that makes
// the call.
func attempts(call func(number int, do func() error) error) connect.ClientOption {
	count := 0
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (response connect.AnyResponse, err error) {
			count++
			err = call(count, func() error {
				response, err = next(ctx, request)
				return err
			})
			return response, err
		}
	}))
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

// checkLog fails the test unless the log of a location has notes with these texts.
func checkLog(t *testing.T, client *routechat.Client, location *routeguide.Point, want ...string) {
	t.Helper()
	if got := readLog(t, client, location); !slices.Equal(got, want) {
		t.Errorf("the log is %q, want %q", got, want)
	}
}

// readLog returns the texts at a location. It leaves a note there.
func readLog(t *testing.T, client *routechat.Client, location *routeguide.Point) (texts []string) {
	t.Helper()
	chat, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(chat.Send(&routeguide.RouteNote{Location: location, Message: "a reader"}), chat.CloseRequest()); err != nil {
		t.Fatal(err)
	}
	for {
		note, err := chat.Receive()
		if errors.Is(err, io.EOF) {
			return texts[:len(texts)-1]
		}
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, note.GetMessage())
	}
}

// A server that is started again after kill -9 gets the note that was left meanwhile.
func TestLeaveWaitsForServer(t *testing.T) {
	t.Parallel()
	store := "pebble:" + t.TempDir()
	server, address, err := process.StartServer(program, "--store", store)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan struct{})
	client := dial(t, "http://"+address, attempts(func(number int, do func() error) error {
		err := do()
		if number == 2 {
			close(failed)
		}
		return err
	}))
	here := &routeguide.Point{Longitude: 1}
	if _, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: here, Message: "before"}); err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		_, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: here, Message: "meanwhile"})
		left <- err
	}()
	<-failed
	server, _, err = process.StartServer(program, "--listen", address, "--store", store)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-left; err != nil {
		t.Error(err)
	}
	checkLog(t, client, here, "before", "meanwhile")
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

// A note whose answers are lost is left once.
func TestLeaveAfterLostAnswers(t *testing.T) {
	t.Parallel()
	client := dial(t, url, attempts(func(number int, do func() error) error {
		if err := do(); err != nil {
			return err
		}
		if number < 3 {
			return connect.NewError(connect.CodeUnavailable, io.ErrUnexpectedEOF)
		}
		return nil
	}))
	here := &routeguide.Point{Longitude: 2}
	if _, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: here, Message: "once"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: here, Message: "once"}); err != nil {
		t.Fatal(err)
	}
	checkLog(t, client, here, "once", "once") // Each call of Leave has an id of its own.
}

func TestLeaveWithID(t *testing.T) {
	t.Parallel()
	client := dial(t, url)
	note := &routeguide.RouteNote{Location: &routeguide.Point{Longitude: 4}, Message: "once"}
	first, err := client.LeaveWithID(t.Context(), note, "an id")
	if err != nil {
		t.Fatal(err)
	}
	again, err := client.LeaveWithID(t.Context(), note, "an id")
	if err != nil {
		t.Fatal(err)
	}
	if first.GetId() != "an id" || again.GetPosition() != first.GetPosition() {
		t.Errorf("got %v and %v, want the same note", first, again)
	}
	note.Message = "another text"
	if _, err := client.LeaveWithID(t.Context(), note, "an id"); connect.CodeOf(err) != connect.CodeAlreadyExists {
		t.Errorf("got %v, want ALREADY_EXISTS", err)
	}
	checkLog(t, client, note.GetLocation(), "once")
}

func TestLeaveRetriesOnlyWhatMayPass(t *testing.T) {
	t.Parallel()
	retried := []connect.Code{
		connect.CodeCanceled, connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeResourceExhausted,
		connect.CodeAborted, connect.CodeInternal, connect.CodeUnavailable,
	}
	for code := connect.CodeCanceled; code <= connect.CodeUnauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			client := dial(t, url, attempts(func(number int, do func() error) error {
				if number == 1 {
					return connect.NewError(code, errors.New("the first attempt fails"))
				}
				return do()
			}))
			_, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: &routeguide.Point{Longitude: 3}})
			if slices.Contains(retried, code) && err != nil || !slices.Contains(retried, code) && connect.CodeOf(err) != code {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The error at the end of the context has that of the last attempt.
func TestLeaveUntilContextEnds(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil { // Nobody listens there now.
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err = dial(t, "http://"+listener.Addr().String(), attempts(func(number int, do func() error) error {
		err := do()
		if number == 2 {
			cancel()
		}
		return err
	})).Leave(ctx, &routeguide.RouteNote{Location: &routeguide.Point{}})
	if connect.CodeOf(err) != connect.CodeCanceled || !errors.Is(err, context.Canceled) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want CANCELED and the cause of the first attempt", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err := dial(t, url).Leave(ctx, &routeguide.RouteNote{Location: &routeguide.Point{}}); connect.CodeOf(err) != connect.CodeDeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DEADLINE_EXCEEDED", err)
	}
}

func TestLeaveStopsAtInvalidCertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := dial(t, server.URL).Leave(ctx, &routeguide.RouteNote{Location: &routeguide.Point{}})
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok || connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("got %v, want the error of the first attempt", err)
	}
}

// The bound of the delay doubles from half a second to 20 seconds, and the delay is random below it.
func TestLeaveBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		client, err := routechat.New("http://unused", attempts(func(int, func() error) error {
			at = append(at, time.Now())
			return connect.NewError(connect.CodeUnavailable, errors.New("no server"))
		}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := client.Leave(ctx, &routeguide.RouteNote{}); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("got %v", err)
		}
		longest := time.Duration(0)
		for i := range len(at) - 1 {
			delay, bound := at[i+1].Sub(at[i]), min(20*time.Second, 500*time.Millisecond<<min(i, 10))
			if delay >= bound {
				t.Errorf("delay %d is %v, want less than %v", i+1, delay, bound)
			}
			longest = max(longest, delay)
		}
		// About 360 attempts, at 10 s on average.
		if len(at) < 200 || len(at) > 600 || longest < 15*time.Second {
			t.Errorf("%d attempts in an hour, the longest delay %v, want jitter below 20 s", len(at), longest)
		}
	})
}
