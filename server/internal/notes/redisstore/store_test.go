package redisstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/routeguide/internal/redistest"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/notestest"
	"example.com/routeguide/server/internal/notes/redisstore"
)

func open(t *testing.T, options redisstore.Options) *redisstore.Store {
	t.Helper()
	store, err := redisstore.Open(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func TestStoreOnNode(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T) redisstore.Options {
		return redisstore.Options{URL: "redis://" + redistest.Start(t).Addr}
	})
}

func TestStoreOnNodeWithReplica(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	run(t, func(t *testing.T) redisstore.Options {
		master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
		startReplica(t, master)
		return redisstore.Options{URL: "redis://" + master.Addr, Replicas: 1}
	})
}

func startReplica(t *testing.T, master *redistest.Node) *redistest.Node {
	t.Helper()
	replica := redistest.Start(t, "--replicaof", strings.ReplaceAll(master.Addr, ":", " "))
	// WAIT counts a replica from its first acknowledgement on, up to a second later.
	for !strings.Contains(master.CLI(t, "INFO", "replication"), "state=online") {
		time.Sleep(20 * time.Millisecond)
	}
	return replica
}

// TestStoreOnCluster runs the conformance tests one after the other on one cluster, which is emptied for each
// store.
func TestStoreOnCluster(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	nodes := redistest.StartCluster(t)
	free := make(chan struct{}, 1) // has an element while no test has the cluster
	free <- struct{}{}
	var owner atomic.Pointer[testing.T]
	run(t, func(t *testing.T) redisstore.Options {
		if owner.Load() != t {
			<-free
			owner.Store(t)
			t.Cleanup(func() { free <- struct{}{} })
		}
		for _, node := range nodes {
			if node.IsMaster(t) {
				node.CLI(t, "FLUSHALL")
			}
		}
		return redisstore.Options{URL: "redis://" + nodes[4].Addr + "?addr=" + nodes[0].Addr}
	})
}

func run(t *testing.T, start func(*testing.T) redisstore.Options) {
	t.Helper()
	notestest.Run(t, func(t *testing.T) (notes.Store, func() notes.Store) {
		options := start(t)
		return notestest.Reopening(t, func() notes.Store { return open(t, options) })
	})
}

func draft(text string) notes.Note {
	return notes.Note{Time: notes.Now(), Encoded: []byte(text)}
}

func texts(t *testing.T, store notes.Store, location notes.Location) []string {
	t.Helper()
	var texts []string
	for chunk, err := range store.Range(t.Context(), location, notes.Everything) {
		if err != nil {
			t.Fatal(err)
		}
		for _, note := range chunk {
			texts = append(texts, string(note.Encoded))
		}
	}
	return texts
}

// consistent checks that the changes, the logs and the index of a store from which nothing was forgotten beyond the
// changes that can be replayed agree.
func consistent(t *testing.T, store notes.Store) {
	t.Helper()
	ends, err := store.Ends(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	changed := make(map[notes.Location]map[notes.Position]bool)
	for partition, end := range ends {
		next := notes.Sequence(1)
		for chunk, err := range store.Changes(t.Context(), partition, 1) {
			if err != nil {
				t.Fatal(err)
			}
			for _, change := range chunk {
				if change.Sequence != next {
					t.Errorf("partition %d: change %d comes where %d is due", partition, change.Sequence, next)
				}
				next++
				if changed[change.Location] == nil {
					changed[change.Location] = make(map[notes.Position]bool)
				}
				if changed[change.Location][change.Note.Position] {
					t.Errorf("position %d of %v is given twice", change.Note.Position, change.Location)
				}
				changed[change.Location][change.Note.Position] = true
			}
		}
		if next != end+1 {
			t.Errorf("partition %d ends with %d, and the last change is %d", partition, end, next-1)
		}
	}
	indexed := make(map[notes.Location]bool)
	for location, err := range store.Locations(t.Context(), notes.World, nil) {
		if err != nil {
			t.Fatal(err)
		}
		indexed[location] = true
		if changed[location] == nil {
			t.Errorf("%v is in the index, and has no changes", location)
		}
	}
	for location, positions := range changed {
		kept := 0
		for chunk, err := range store.Range(t.Context(), location, notes.Everything) {
			if err != nil {
				t.Fatal(err)
			}
			for _, note := range chunk {
				kept++
				if !positions[note.Position] {
					t.Errorf("the note at %v, %d is no change", location, note.Position)
				}
			}
		}
		if (kept > 0) != indexed[location] {
			t.Errorf("%v has %d notes, and is in the index: %v", location, kept, indexed[location])
		}
	}
}

func TestAppendErrUnknownWithoutReplica(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	replica := startReplica(t, master)
	store := open(t, redisstore.Options{URL: "redis://" + master.Addr + "?replicas=1"})
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("a")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(replica.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("b")); !errors.Is(err, notes.ErrUnknown) {
		t.Errorf("got %v with the replica stopped, want notes.ErrUnknown", err)
	}
	if err := syscall.Kill(replica.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("c")); err != nil {
		t.Errorf("got %v with the replica back", err)
	}
	if got := texts(t, store, notes.Location{}); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("the log is %v", got)
	}
}

func TestStoreRecoversFromRedisRestart(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	node := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	health := make(chan error, 10)
	store := open(t, redisstore.Options{URL: "redis://" + node.Addr, Health: func(err error) { health <- err }})
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("a")); err != nil {
		t.Fatal(err)
	}
	node.Kill(t)
	if err := <-health; err == nil {
		t.Error("health is good without Redis")
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("b")); !errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("Append: got %v, want notes.ErrUnavailable", err)
	}
	for _, err := range store.Range(t.Context(), notes.Location{}, notes.Everything) {
		if !errors.Is(err, notes.ErrUnavailable) {
			t.Errorf("Range: got %v, want notes.ErrUnavailable", err)
		}
	}
	node.Run(t)
	if err := <-health; err != nil {
		t.Errorf("health is %v with Redis back", err)
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("c")); err != nil {
		t.Errorf("Append with Redis back: %v", err)
	}
	if got := texts(t, store, notes.Location{}); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("the log is %v", got)
	}
}

// Redis is killed during appends: answered notes are in the store once, and notes with ErrUnavailable are not.
func TestAppendDuringRedisCrashes(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	store := open(t, redisstore.Options{URL: "redis://" + node.Addr})
	type fate struct {
		text string
		err  error
	}
	fates := make(chan []fate)
	const writers = 8
	done := make(chan struct{})
	for writer := range writers {
		go func() {
			var own []fate
			for i := 0; !closed(done); i++ {
				text := fmt.Sprintf("%d-%d", writer, i)
				_, err := notes.Append(t.Context(), store, notes.Location{Latitude: int32(i % 5)}, draft(text))
				own = append(own, fate{text, err})
				if err != nil {
					time.Sleep(5 * time.Millisecond)
				}
			}
			fates <- own
		}()
	}
	for range 3 {
		time.Sleep(100 * time.Millisecond) // some hundred notes
		node.Kill(t)
		time.Sleep(20 * time.Millisecond) // some failed appends
		node.Run(t)
	}
	close(done)
	var all []fate
	for range writers {
		all = append(all, <-fates...)
	}
	kept := make(map[string]int)
	for i := range 5 {
		for _, text := range texts(t, store, notes.Location{Latitude: int32(i)}) {
			kept[text]++
		}
	}
	answered := 0
	for _, fate := range all {
		switch count := kept[fate.text]; {
		case fate.err == nil && count != 1:
			t.Errorf("%s was answered, and is there %d times", fate.text, count)
		case errors.Is(fate.err, notes.ErrUnavailable) && count != 0:
			t.Errorf("%s was said not to be stored (%v), and is there %d times", fate.text, fate.err, count)
		case errors.Is(fate.err, notes.ErrUnknown) && count > 1:
			t.Errorf("%s is there %d times", fate.text, count)
		case fate.err == nil:
			answered++
		}
	}
	t.Logf("%d of %d notes were answered", answered, len(all))
	if answered == 0 || answered == len(all) {
		t.Errorf("%d of %d notes were answered, want some and not all", answered, len(all))
	}
}

func closed(channel chan struct{}) bool {
	select {
	case <-channel:
		return true
	default:
		return false
	}
}

func TestOpenErrorHasNoPassword(t *testing.T) {
	t.Parallel()
	for rawURL, want := range map[string]string{
		"http://host:1":                        "scheme",
		"redis://":                             "names no host",
		"redis://user:secret@host:1?adr=x":     `parameter "adr"`,
		"redis://user:secret@127.0.0.1:1":      "connect to redis://127.0.0.1:1",
		"redis://user:secret@%zz":              "not a URL",
		"redis://user:secret@127.0.0.1:1?db=x": "invalid database",
		"redis://user:secret@host?replicas=-1": "want a number of replicas",
	} {
		store, err := redisstore.Open(redisstore.Options{URL: rawURL})
		if err == nil {
			_ = store.Close()
			t.Errorf("%s: no error", rawURL)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want %q and no password", rawURL, err, want)
		}
	}
}
