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

var soak = flag.Duration("soak", 10*time.Second, "duration of TestSoak")

const (
	soakClients  = 24 // concurrent clients
	soakRestarts = 4  // graceful shutdowns during the test
	// soakHistory is the limit of notes in a reply. Without it, replies would become most of the work.
	soakHistory = 100
	// Tolerances of the leak check, which compares an idle server before and after the load.
	maxExtraGoroutines = 10
	maxExtraMiB        = 250 // the caches of the store are full afterwards: 96 MiB of logs, 128 MiB of blocks and memtables
)

// soakServer is a server that the test restarts.
type soakServer struct {
	folder  string
	program string

	process *process.Process
	admin   string
	url     atomic.Pointer[string]
}

// start starts the server with --history.
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

// measureIdle waits until the server is idle, and returns the number of its goroutines and its resident memory in MiB.
func (s *soakServer) measureIdle(t *testing.T) (goroutines int, mib int64) {
	t.Helper()
	eventually(t, "all chats have ended", func() bool {
		return strings.Contains(get(t, "http://"+s.admin+"/metrics"), "\nrouteguide_chats 0\n")
	})
	// The connection of a closed client may stay idle for 90 s more, if its last call had just ended.
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

// Chats come, go, stall, are reset and drained at random. Afterwards every answered note is in the log once, and the
// server leaks neither goroutines nor memory.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	program, err := program()
	if err != nil {
		t.Fatal(err)
	}
	server := &soakServer{folder: t.TempDir(), program: program}
	if err := server.start(soakHistory); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.process.Kill() })
	goroutines, before := server.measureIdle(t)
	ctx, cancel := context.WithTimeout(t.Context(), *soak)
	defer cancel()
	var running sync.WaitGroup
	writers := make([]*soakClient, soakClients)
	for i := range writers {
		writers[i] = &soakClient{number: i, server: server, random: rand.New(rand.NewPCG(uint64(i), 1)), answered: make(map[string]bool)}
		running.Go(func() { writers[i].run(ctx, t) })
	}
	for drain := range soakRestarts {
		select {
		case <-time.After(*soak / (soakRestarts + 1)):
		case <-ctx.Done():
		}
		if err := server.process.Stop(); err != nil {
			t.Fatalf("drain %d: %v", drain, err)
		}
		if err := server.start(soakHistory); err != nil {
			t.Fatal(err)
		}
	}
	running.Wait()
	afterGoroutines, after := server.measureIdle(t)
	if err := server.process.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := server.start(0); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, writer := range writers {
		log := readLog(t, *server.url.Load(), writer.location())
		seen := make(map[string]bool)
		for _, text := range log {
			if seen[text] {
				t.Errorf("%s is in the log twice", text)
			}
			seen[text] = true
		}
		for text := range writer.answered {
			if !seen[text] {
				t.Errorf("%s was answered, and is not in the log", text)
			}
		}
		total += len(writer.answered)
	}
	t.Logf("%d notes were answered and are in the log; %d goroutines before and %d after, %d and %d MiB", total, goroutines, afterGoroutines, before, after)
	if afterGoroutines > goroutines+maxExtraGoroutines {
		t.Errorf("%d goroutines before, %d after", goroutines, afterGoroutines)
	}
	if after > before+maxExtraMiB {
		t.Errorf("%d MiB before, %d after", before, after)
	}
	if err := server.process.Stop(); err != nil {
		t.Error(err)
	}
}

// soakClient is a client with random behaviour, reproducible by its seed.
type soakClient struct {
	number   int
	server   *soakServer
	random   *rand.Rand
	last     int
	answered map[string]bool
}

func (s *soakClient) location() *routeguide.Point {
	return &routeguide.Point{Latitude: 1, Longitude: int32(s.number)}
}

func (s *soakClient) run(ctx context.Context, t *testing.T) {
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

// stall opens a chat, sends notes and does not read the replies.
func (s *soakClient) stall(address string) {
	h, err := dialHostile(address)
	if err != nil {
		return // The server is restarting.
	}
	err = h.open(1, chatPath)
	for i := 0; i < 30 && err == nil; i++ {
		err = h.sendNote(1, int32(1000+s.number), strings.Repeat("x", 10_000))
	}
	time.Sleep(time.Duration(s.random.IntN(2000)) * time.Millisecond)
	_ = h.Close()
}

// chat runs a chat that ends with a half-close, a reset, or the server's drain.
func (s *soakClient) chat(ctx context.Context, url string) error {
	client, err := routechat.New(url)
	if err != nil {
		return err
	}
	defer client.Close()
	chatCtx, reset := context.WithTimeout(ctx, time.Duration(50+s.random.IntN(3000))*time.Millisecond)
	defer reset()
	stream, err := client.RouteChat(chatCtx)
	if err != nil {
		return nil // The server is restarting.
	}
	count, ahead := 1+s.random.IntN(200), 1+s.random.IntN(50)
	prefix, first := fmt.Sprintf("%d-", s.number), s.last
	s.last += count
	var sender sync.WaitGroup
	inFlight := make(chan struct{}, ahead)
	sender.Go(func() {
		for i := range count {
			select {
			case inFlight <- struct{}{}:
			case <-chatCtx.Done():
				return
			}
			if stream.Send(&routeguide.RouteNote{Location: s.location(), Message: prefix + strconv.Itoa(first+i)}) != nil {
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
			<-inFlight
		}
	}
	reset()
	sender.Wait()
	_ = stream.CloseResponse() // Returns the same error as Receive.
	return nil
}
