package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
)

// When the server is told to end while 1000 chats write, each gets a reply to every note of its that is kept,
// and then UNAVAILABLE.
func TestADrainOwesNothingToAThousandChats(t *testing.T) {
	const clients, chatsEach = 20, 50
	folder := t.TempDir()
	server, url := startProcess(t, "--store", "pebble:"+folder)
	var chatting, opened sync.WaitGroup
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
			chatting.Go(func() {
				answered[number], ends[number] = chatUntilTheEnd(t.Context(), client, int32(number), opened.Done)
			})
		}
	}
	opened.Wait()
	var refused atomic.Bool
	probing, stopProbing := context.WithCancel(t.Context())
	var probes sync.WaitGroup
	probes.Go(func() {
		// New connections during the drain are served or refused, and do not hang.
		for probing.Err() == nil {
			client, err := routechat.New(url)
			if err != nil {
				t.Error(err)
				return
			}
			timeout, cancel := context.WithTimeout(probing, 5*time.Second)
			_, err = client.GetFeature(timeout, &routeguide.Point{})
			if connect.CodeOf(err) == connect.CodeDeadlineExceeded {
				t.Error("a call during the drain has hung")
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
	chatting.Wait()
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
	t.Logf("%d notes were answered, and are all there", total)
}

// chatUntilTheEnd writes notes at a location of its own, two ahead, until the chat ends, and returns how many
// were answered.
func chatUntilTheEnd(ctx context.Context, client *routechat.Client, longitude int32, opened func()) (answered int, err error) {
	opened = sync.OnceFunc(opened)
	defer opened()
	stream, err := client.RouteChat(ctx)
	if err != nil {
		return 0, err
	}
	var sending sync.WaitGroup
	ahead := make(chan struct{}, 2)
	sending.Go(func() {
		for i := 0; ; i++ {
			ahead <- struct{}{}
			if stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{Longitude: longitude}, Message: fmt.Sprint(i)}) != nil {
				return
			}
		}
	})
	for {
		note, err := stream.Receive()
		if err != nil {
			// The sender may wait for a place.
			go func() {
				for range ahead {
				}
			}()
			err = errors.Join(err, stream.CloseResponse())
			sending.Wait()
			close(ahead)
			return answered, err
		}
		if note.GetMessage() == fmt.Sprint(answered) {
			answered++
			<-ahead
			opened()
		}
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	server, url := startProcess(t, "--store", "memory:", "--shutdown-delay", "10m")
	client, err := routechat.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Await("serving on, while health says NOT_SERVING"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.GetFeature(t.Context(), &routeguide.Point{}); err != nil {
		t.Errorf("a call during the delay: %v", err)
	}
	if err := server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := server.Wait(); err != nil || code == 0 {
		t.Errorf("ended with %d, %v, want by the signal", code, err)
	}
}

func TestAChatLastsAsLongAsItMay(t *testing.T) {
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
		t.Errorf("got %v after its life, want UNAVAILABLE", err)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
	client.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
}
