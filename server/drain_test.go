package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
)

// A graceful shutdown under load: each of 1000 chats gets a reply to every note that was kept, and then UNAVAILABLE.
func TestDrainAnswersKeptNotesOfThousandChats(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	const clients, chatsEach = 20, 50
	folder := t.TempDir()
	server, url := startProcess(t, "--store", "pebble:"+folder)
	var chats, opened sync.WaitGroup
	answered := make([]int, clients*chatsEach)
	ends := make([]error, clients*chatsEach)
	opened.Add(clients * chatsEach)
	for i := range clients {
		client, err := routechat.New(url)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for j := range chatsEach {
			number := i*chatsEach + j
			chats.Go(func() {
				answered[number], ends[number] = chatUntilDrained(t.Context(), client, int32(number), opened.Done)
			})
		}
	}
	opened.Wait()
	var refused atomic.Bool
	probing, stopProbing := context.WithCancel(t.Context())
	var probes sync.WaitGroup
	probes.Go(func() {
		// New connections during the drain must be served or refused, and must not hang.
		for probing.Err() == nil {
			client, err := routechat.New(url)
			if err != nil {
				t.Error(err)
				return
			}
			timeout, cancel := context.WithTimeout(probing, 5*time.Second)
			_, err = client.GetFeature(timeout, &routeguide.Point{})
			if connect.CodeOf(err) == connect.CodeDeadlineExceeded {
				t.Error("a call during the drain hangs")
			}
			refused.Store(refused.Load() || connect.CodeOf(err) == connect.CodeUnavailable)
			cancel()
			client.Close()
		}
	})
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	code, err := server.Wait()
	if err != nil || code != 0 {
		t.Fatalf("the server ended with %d, %v:\n%s", code, err, server.Printed())
	}
	t.Logf("the drain took %v", time.Since(start))
	chats.Wait()
	stopProbing()
	probes.Wait()
	if !refused.Load() {
		t.Error("no call was refused")
	}
	_, url = startProcess(t, "--store", "pebble:"+folder)
	total := 0
	for number, count := range answered {
		if connect.CodeOf(ends[number]) != connect.CodeUnavailable {
			t.Errorf("chat %d ended with %v, want UNAVAILABLE", number, ends[number])
		}
		if kept := len(readLog(t, url, &routeguide.Point{Longitude: int32(number)})); kept != count {
			t.Errorf("chat %d: %d notes are kept, %d were answered", number, kept, count)
		}
		total += count
	}
	t.Logf("%d notes were answered, and all are kept", total)
}

// chatUntilDrained sends notes to a location of its own, two in flight, until the stream ends. It calls opened after
// the first reply, and returns the number of answered notes and the error of the stream.
func chatUntilDrained(ctx context.Context, client *routechat.Client, longitude int32, opened func()) (answered int, err error) {
	opened = sync.OnceFunc(opened)
	defer opened()
	stream, err := client.RouteChat(ctx)
	if err != nil {
		return 0, err
	}
	var sender sync.WaitGroup
	inFlight := make(chan struct{}, 2)
	sender.Go(func() {
		for i := 0; ; i++ {
			inFlight <- struct{}{}
			if stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{Longitude: longitude}, Message: fmt.Sprint(i)}) != nil {
				return
			}
		}
	})
	for {
		note, err := stream.Receive()
		if err != nil {
			// Unblock the sender.
			go func() {
				for range inFlight {
				}
			}()
			err = errors.Join(err, stream.CloseResponse())
			sender.Wait()
			close(inFlight)
			return answered, err
		}
		if note.GetMessage() == fmt.Sprint(answered) {
			answered++
			<-inFlight
			opened()
		}
	}
}

func TestSecondSignalKillsDuringShutdownDelay(t *testing.T) {
	server, url := startProcess(t, "--store", "memory:", "--shutdown-delay", "10m")
	client, err := routechat.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Await("still serving, health is NOT_SERVING"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetFeature(t.Context(), &routeguide.Point{}); err != nil {
		t.Errorf("a call during the delay: %v", err)
	}
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := server.Wait(); err != nil || code == 0 {
		t.Errorf("ended with %d, %v, want killed by the signal", code, err)
	}
}

func TestMaxChatAgeEndsChat(t *testing.T) {
	url, stop := start(t, "--max-chat-age", "200ms")
	client, err := routechat.New(url)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Errorf("the reply: %v", err)
	}
	if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeUnavailable || errors.Is(err, io.EOF) {
		t.Errorf("got %v after --max-chat-age, want UNAVAILABLE", err)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
	client.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// During --shutdown-delay, health and readiness already fail, so that load balancers stop using the server, while it
// still serves.
func TestShutdownDelayServesWhileHealthIsNotServing(t *testing.T) {
	server, url := startProcess(t, "--store", "memory:", "--shutdown-delay", "10m", "--admin", "127.0.0.1:0")
	admin, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	ready := "http://" + admin[1] + "/readyz"
	if text := get(t, ready); text != "ok\n" {
		t.Errorf("before the drain /readyz says %q", text)
	}
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Await("still serving, health is NOT_SERVING"); err != nil {
		t.Fatal(err)
	}
	text := get(t, ready)
	for deadline := time.Now().Add(30 * time.Second); text == "ok\n" && time.Now().Before(deadline); {
		text = get(t, ready) // The line is logged just before readiness changes.
	}
	if text != "shutting down\n" {
		t.Errorf("during the delay /readyz says %q", text)
	}
	if text := post(t, url+"/grpc.health.v1.Health/Check"); !strings.Contains(text, "NOT_SERVING") {
		t.Errorf("health says %s", text)
	}
	if text := post(t, url+"/routeguide.RouteGuide/GetFeature"); !strings.Contains(text, "location") {
		t.Errorf("a call during the delay gets %s", text)
	}
	if err := server.Kill(); err != nil {
		t.Error(err)
	}
}
