package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/process"
)

var soak = flag.Duration("soak", 10*time.Second, "how long chats come and go in TestSoak")

const (
	// soakers is how many clients there are at once, and soakDrains how often the server is ended.
	soakers    = 24
	soakDrains = 4
	// soakHistory bounds replies, which would otherwise be most of the work after a while.
	soakHistory = 100
	// leftGoroutines and leftMiB are how much more a server may hold after it than before, at rest.
	leftGoroutines = 10
	leftMiB        = 150
)

// soakServer is a server that is ended and started again.
type soakServer struct {
	folder  string
	program string

	process *process.Process
	admin   string
	url     atomic.Pointer[string]
}

// start starts the server, whose replies have so many notes at most; 0 is all.
func (s *soakServer) start(history int) error {
	server, address, err := process.StartServer(s.program, "--store", "pebble:"+s.folder, "--stall-timeout", "1s", "--admin", "127.0.0.1:0",
		"--history", strconv.Itoa(history))
	if err != nil {
		return err
	}
	match, err := server.Await(`admin=(\S+)`)
	if err != nil {
		return err
	}
	url := "http://" + address
	s.process, s.admin = server, match[1]
	s.url.Store(&url)
	return nil
}

// rest returns how many goroutines the server has and how much memory is resident, in MiB, once it is at rest.
func (s *soakServer) rest(t *testing.T) (goroutines int, mib int64) {
	t.Helper()
	eventually(t, "all chats have ended", func() bool {
		return strings.Contains(get(t, "http://"+s.admin+"/metrics"), "\nrouteguide_chats 0\n")
	})
	// A client that has closed has a connection for 90 s more, if its last call had just ended.
	eventuallyWithin(t, 2*time.Minute, "all connections have ended", func() bool {
		return strings.Contains(get(t, "http://"+s.admin+"/metrics"), "\nrouteguide_connections 0\n")
	})
	get(t, "http://"+s.admin+"/debug/pprof/heap?gc=1")
	match := regexp.MustCompile(`goroutine profile: total (\d+)`).FindStringSubmatch(get(t, "http://"+s.admin+"/debug/pprof/goroutine?debug=1"))
	if match == nil {
		t.Fatal("no profile of goroutines")
	}
	goroutines, _ = strconv.Atoi(match[1])
	memory, err := measure.Memory(s.process.PID(), "VmRSS")
	if err != nil {
		t.Fatal(err)
	}
	return goroutines, memory >> 20
}

// Chats come, go, stall, are reset and drained, at random. After that every answered note is there, once, and the
// server holds what it held before.
func TestSoak(t *testing.T) {
	program, err := program()
	if err != nil {
		t.Fatal(err)
	}
	server := &soakServer{folder: t.TempDir(), program: program}
	if err := server.start(soakHistory); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.process.Kill() })
	goroutines, before := server.rest(t)
	ctx, cancel := context.WithTimeout(t.Context(), *soak)
	defer cancel()
	var soaking sync.WaitGroup
	writers := make([]*soaker, soakers)
	for i := range writers {
		writers[i] = &soaker{number: i, server: server, random: rand.New(rand.NewPCG(uint64(i), 1)), answered: make(map[string]bool)}
		soaking.Go(func() { writers[i].run(ctx, t) })
	}
	for drain := range soakDrains {
		select {
		case <-time.After(*soak / (soakDrains + 1)):
		case <-ctx.Done():
		}
		if err := server.process.Stop(); err != nil {
			t.Fatalf("drain %d: %v", drain, err)
		}
		if err := server.start(soakHistory); err != nil {
			t.Fatal(err)
		}
	}
	soaking.Wait()
	afterGoroutines, after := server.rest(t)
	if err := server.process.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := server.start(0); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, writer := range writers {
		log := readLog(t, *server.url.Load(), writer.at())
		seen := make(map[string]bool)
		for _, text := range log {
			if seen[text] {
				t.Errorf("%s is there twice", text)
			}
			seen[text] = true
		}
		for text := range writer.answered {
			if !seen[text] {
				t.Errorf("%s was answered and is not there", text)
			}
		}
		total += len(writer.answered)
	}
	t.Logf("%d notes were answered and are there; %d goroutines before and %d after, %d and %d MiB", total, goroutines, afterGoroutines, before, after)
	if afterGoroutines > goroutines+leftGoroutines {
		t.Errorf("%d goroutines before, %d after", goroutines, afterGoroutines)
	}
	if after > before+leftMiB {
		t.Errorf("%d MiB before, %d after", before, after)
	}
	if err := server.process.Stop(); err != nil {
		t.Error(err)
	}
}

// soaker is a client of which nobody knows what it does next.
type soaker struct {
	number   int
	server   *soakServer
	random   *rand.Rand
	last     int
	answered map[string]bool
}

func (s *soaker) at() *routeguide.Point {
	return &routeguide.Point{Latitude: 1, Longitude: int32(s.number)}
}

func (s *soaker) run(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		url := *s.server.url.Load()
		if s.random.IntN(10) == 0 {
			s.stall(strings.TrimPrefix(url, "http://"))
			continue
		}
		if err := s.chat(ctx, url); err != nil {
			t.Error(err)
		}
	}
}

// stall opens a chat and does not read it.
func (s *soaker) stall(address string) {
	h, err := intrude(address)
	if err != nil {
		return // The server is being started again.
	}
	err = h.open(1, chatPath)
	for i := 0; i < 30 && err == nil; i++ {
		err = h.leave(1, int32(1000+s.number), strings.Repeat("x", 10_000))
	}
	time.Sleep(time.Duration(s.random.IntN(2000)) * time.Millisecond)
	_ = h.Close()
}

// chat holds a chat that ends in one way or another.
func (s *soaker) chat(ctx context.Context, url string) error {
	client, err := routechat.New(url)
	if err != nil {
		return err
	}
	defer client.Close()
	calling, reset := context.WithTimeout(ctx, time.Duration(50+s.random.IntN(3000))*time.Millisecond)
	defer reset()
	stream, err := client.RouteChat(calling)
	if err != nil {
		return nil // The server is being started again.
	}
	count, ahead := 1+s.random.IntN(200), 1+s.random.IntN(50)
	prefix, first := fmt.Sprintf("%d-", s.number), s.last
	s.last += count
	var sending sync.WaitGroup
	waiting := make(chan struct{}, ahead)
	sending.Go(func() {
		for i := range count {
			select {
			case waiting <- struct{}{}:
			case <-calling.Done():
				return
			}
			if stream.Send(&routeguide.RouteNote{Location: s.at(), Message: prefix + strconv.Itoa(first+i)}) != nil {
				return
			}
		}
		_ = stream.CloseRequest()
	})
	next := prefix + strconv.Itoa(first)
	for answered := 0; ; {
		note, err := stream.Receive()
		if err != nil {
			break
		}
		if note.GetMessage() == next {
			s.answered[next] = true
			answered++
			next = prefix + strconv.Itoa(first+answered)
			<-waiting
		}
	}
	reset()
	sending.Wait()
	_ = stream.CloseResponse() // It says again what Receive has said.
	return nil
}
