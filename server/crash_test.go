package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/process"
	"example.com/routeguide/internal/redistest"
)

// program and clientProgram return the paths of the server and the client, which they build once.
var (
	program       = buildOnce("example.com/routeguide/server")
	clientProgram = buildOnce("example.com/routeguide/client")
)

// buildOnce returns a function that builds a command on its first call.
func buildOnce(pkg string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		folder, err := programFolder()
		if err != nil {
			return "", err
		}
		return process.Build(".", pkg, folder)
	})
}

// programFolder returns the folder of the programs. TestMain deletes it.
var programFolder = sync.OnceValues(func() (string, error) {
	return os.MkdirTemp("", "routeguide")
})

func startProcess(t *testing.T, args ...string) (server *process.Process, url string) {
	t.Helper()
	program, err := program()
	if err != nil {
		t.Fatal(err)
	}
	server, address, err := process.StartServer(program, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Kill(); err != nil {
			t.Error(err)
		}
	})
	return server, "http://" + address
}

// writer is a client that sends notes to its own location and to a shared one, and records which were answered.
type writer struct {
	name     string
	own      *routeguide.Point // location
	answered map[string]bool   // texts of notes that have a reply
	last     int               // number of the last note
}

var sharedLocation = &routeguide.Point{Latitude: 7}

// chat sends notes without waiting for replies, every tenth to the shared location, until the stream ends.
func (w *writer) chat(ctx context.Context, t *testing.T, url string) {
	client, err := routechat.New(url)
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	stream, err := client.RouteChat(ctx)
	if err != nil {
		return
	}
	var sender sync.WaitGroup
	sender.Go(func() {
		defer func() { _ = stream.CloseRequest() }()
		for ctx.Err() == nil {
			w.last++
			location := w.own
			if w.last%10 == 0 {
				location = sharedLocation
			}
			if stream.Send(&routeguide.RouteNote{Location: location, Message: fmt.Sprintf("%s-%06d", w.name, w.last)}) != nil {
				return
			}
		}
	})
	for {
		note, err := stream.Receive()
		if err != nil {
			break
		}
		if strings.HasPrefix(note.GetMessage(), w.name+"-") {
			w.answered[note.GetMessage()] = true
		}
	}
	_ = stream.CloseResponse()
	sender.Wait()
}

// readLog returns the texts of all notes at a location.
func readLog(t *testing.T, url string, location *routeguide.Point) []string {
	t.Helper()
	log, err := exchange(t, url, location, "reader")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(log, func(text string) bool { return text == "reader" })
}

// checkLog fails the test unless a log has each answered note of the writers once, and those of each writer in order.
func checkLog(t *testing.T, log []string, location *routeguide.Point, writers []*writer) {
	t.Helper()
	seen := make(map[string]bool)
	last := make(map[string]string)
	for _, text := range log {
		name, _, _ := strings.Cut(text, "-")
		if seen[text] {
			t.Errorf("%s is in the log twice", text)
		}
		if text <= last[name] {
			t.Errorf("%s comes after %s", text, last[name])
		}
		seen[text], last[name] = true, text
	}
	for _, writer := range writers {
		for text := range writer.answered {
			var number int
			if _, err := fmt.Sscanf(text, writer.name+"-%d", &number); err != nil {
				t.Fatal(err)
			}
			if here := (number%10 == 0) == (location == sharedLocation) && (location == sharedLocation || location == writer.own); here && !seen[text] {
				t.Errorf("%s was answered, and is not in the log", text)
			}
		}
	}
}

// After SIGKILL at random times during writes, the log has every answered note once, and in order.
func TestAnsweredNotesSurviveKill9(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	const kills, count = 12, 4
	dir := filepath.Join(t.TempDir(), "notes")
	writers := make([]*writer, count)
	for i := range writers {
		writers[i] = &writer{name: fmt.Sprintf("w%d", i), own: &routeguide.Point{Longitude: int32(i + 1)}, answered: make(map[string]bool)}
	}
	for range kills {
		server, url := startProcess(t, "--store", "pebble:"+dir, "--history", "3")
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, writer := range writers {
			running.Go(func() { writer.chat(ctx, t, url) })
		}
		time.Sleep(time.Duration(20+rand.IntN(200)) * time.Millisecond) // A random time, on purpose.
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		cancel()
		running.Wait()
	}
	server, url := startProcess(t, "--store", "pebble:"+dir)
	answered := 0
	for _, writer := range writers {
		answered += len(writer.answered)
		checkLog(t, readLog(t, url, writer.own), writer.own, writers)
	}
	checkLog(t, readLog(t, url, sharedLocation), sharedLocation, writers)
	t.Logf("%d answered notes survived %d kills", answered, kills)
	if answered == 0 {
		t.Error("no note was answered")
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

// Notes that are left while servers are killed at random times are left once each, also if the answer was lost.
func TestLeftNotesAreLeftOnceInSpiteOfKill9(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	for name, store := range map[string]func(*testing.T) string{
		"Pebble": func(t *testing.T) string { return "pebble:" + filepath.Join(t.TempDir(), "notes") },
		"Redis":  func(t *testing.T) string { return "redis://" + redistest.Start(t).Addr },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leaveDuringKills(t, store(t))
		})
	}
}

func leaveDuringKills(t *testing.T, store string) {
	const kills, people = 8, 50
	server, url := startProcess(t, "--store", store)
	client, err := routechat.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var ended atomic.Bool // no more notes are begun
	left, first := make([][]string, people), make(chan struct{}, people)
	var leaving sync.WaitGroup
	for i := range people {
		leaving.Go(func() {
			for number := 1; !ended.Load(); number++ {
				text := fmt.Sprintf("w%d-%06d", i, number)
				if _, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: sharedLocation, Message: text}); err != nil {
					t.Error(err)
					return
				}
				if left[i] = append(left[i], text); number == 1 {
					first <- struct{}{}
				}
			}
		})
	}
	<-first
	for range kills {
		time.Sleep(time.Duration(100+rand.IntN(300)) * time.Millisecond) // A random time, on purpose.
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		server, _ = startProcess(t, "--store", store, "--listen", strings.TrimPrefix(url, "http://"))
	}
	ended.Store(true)
	leaving.Wait()
	got := readLog(t, url, sharedLocation)
	want := slices.Concat(left...)
	slices.Sort(got)
	slices.Sort(want)
	t.Logf("%d notes left once during %d kills", len(want), kills)
	if !slices.Equal(got, want) {
		t.Errorf("the log has %d notes, want each of the %d that were left, once", len(got), len(want))
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

// Two servers on one Redis Cluster see the same order of notes at each location.
func TestRedisClusterHasOneOrderForTwoServers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	nodes := redistest.StartCluster(t)
	url := "redis://" + nodes[0].Addr + "?addr=" + nodes[1].Addr
	first, firstURL := startProcess(t, "--store", url, "--redis-replicas", "1", "--history", "3")
	second, secondURL := startProcess(t, "--store", url, "--redis-replicas", "1", "--history", "3")
	writers := make([]*writer, 4)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var running sync.WaitGroup
	for i := range writers {
		writers[i] = &writer{name: fmt.Sprintf("w%d", i), own: &routeguide.Point{Longitude: int32(i + 1)}, answered: make(map[string]bool)}
		running.Go(func() { writers[i].chat(ctx, t, []string{firstURL, secondURL}[i%2]) })
	}
	running.Wait()
	if err := errors.Join(first.Stop(), second.Stop()); err != nil {
		t.Fatal(err)
	}
	_, firstURL = startProcess(t, "--store", url)
	_, secondURL = startProcess(t, "--store", url)
	answered := 0
	for _, location := range append([]*routeguide.Point{sharedLocation}, writers[0].own, writers[1].own, writers[2].own, writers[3].own) {
		one, other := readLog(t, firstURL, location), readLog(t, secondURL, location)
		if fmt.Sprint(one) != fmt.Sprint(other) {
			t.Errorf("at %v the servers see %d and %d notes, or in different order", location, len(one), len(other))
		}
		checkLog(t, one, location, writers)
		answered += len(one)
	}
	t.Logf("%d notes in the same order", answered)
	if answered < 100 {
		t.Errorf("only %d notes were kept", answered)
	}
}

func TestPebbleFolderInUseRefusesSecondServer(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "notes")
	first, _ := startProcess(t, "--store", "pebble:"+dir)
	second, err := process.Start(must(program()), "--listen", "127.0.0.1:0", "--store", "pebble:"+dir)
	if err != nil {
		t.Fatal(err)
	}
	code, err := second.Wait()
	if code != 1 || err != nil || strings.Count(second.Printed(), "\n") != 1 || !strings.Contains(second.Printed(), "in use by another process") {
		t.Errorf("the second server ended with %d, %v:\n%s", code, err, second.Printed())
	}
	// Tools can read the store meanwhile.
	if printed, err := process.Run(t.Context(), must(program()), "notes", "stats", "--store", "pebble:"+dir); err != nil || !strings.Contains(printed, "notes        0") {
		t.Errorf("stats: %v\n%s", err, printed)
	}
	if err := first.Stop(); err != nil {
		t.Error(err)
	}
}

func must(program string, err error) string {
	if err != nil {
		panic(err)
	}
	return program
}
