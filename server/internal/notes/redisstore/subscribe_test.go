package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/routeguide/internal/redistest"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/redisstore"
)

// listener collects announcements.
type listener struct {
	mu     sync.Mutex     // guards the rest
	heard  map[string]int // how often each text was announced
	missed map[int]int    // how often changes of each partition were missed
	last   map[int]notes.Sequence
	gaps   []error
	more   chan struct{} // has an element after an announcement
}

func newListener() *listener {
	return &listener{heard: make(map[string]int), missed: make(map[int]int), last: make(map[int]notes.Sequence), more: make(chan struct{}, 1)}
}

func (l *listener) announce(announcement notes.Announcement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if announcement.Missed {
		l.missed[announcement.Partition]++
		delete(l.last, announcement.Partition)
	}
	for _, change := range announcement.Changes {
		if last, ok := l.last[announcement.Partition]; ok && change.Sequence != last+1 {
			l.gaps = append(l.gaps, fmt.Errorf("partition %d: %d is announced after %d", announcement.Partition, change.Sequence, last))
		}
		l.last[announcement.Partition] = change.Sequence
		l.heard[string(change.Note.Encoded)]++
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// await waits until done, which is called with the lock, returns true.
func (l *listener) await(t *testing.T, done func() bool) {
	t.Helper()
	timeout := time.After(60 * time.Second)
	for {
		l.mu.Lock()
		ok, gaps := done(), errors.Join(l.gaps...)
		l.mu.Unlock()
		if gaps != nil {
			t.Fatal(gaps)
		}
		if ok {
			return
		}
		select {
		case <-l.more:
		case <-timeout:
			t.Fatal("what is awaited is not announced")
		}
	}
}

// hears waits until texts have been announced, each once.
func (l *listener) hears(t *testing.T, texts ...string) {
	t.Helper()
	l.await(t, func() bool {
		for _, text := range texts {
			if l.heard[text] == 0 {
				return false
			}
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, text := range texts {
		if l.heard[text] != 1 {
			t.Errorf("%q is announced %d times", text, l.heard[text])
		}
	}
}

func (l *listener) missedNothing(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.missed) > 0 {
		t.Errorf("changes were missed, by partition: %v", l.missed)
	}
}

// Two servers on one Redis announce the notes of both, and see one order.
func TestSubscribeAcrossServers(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	var stores [2]notes.Store
	var listeners [2]*listener
	for i := range stores {
		stores[i] = open(t, redisstore.Options{URL: "redis://" + node.Addr})
		listeners[i] = newListener()
		defer stores[i].Subscribe(listeners[i].announce)()
	}
	const writers, count, locations = 4, 200, 7
	var texts []string
	var writing sync.WaitGroup
	for i, store := range stores {
		for writer := range writers {
			for number := range count {
				texts = append(texts, fmt.Sprint(i, writer, number))
			}
			writing.Go(func() {
				for number := range count {
					keep(t, store, notes.Location{Latitude: int32(number % locations)}, fmt.Sprint(i, writer, number))
				}
			})
		}
	}
	writing.Wait()
	for i, listener := range listeners {
		listener.hears(t, texts...)
		listener.missedNothing(t)
		for partition, end := range ends(t, stores[i]) {
			if end > 0 && listener.last[partition] != end {
				t.Errorf("server %d: partition %d ends with %d, and %d was announced last", i, partition, end, listener.last[partition])
			}
		}
	}
	for i := range locations {
		logs := [2]string{}
		for server, store := range stores {
			for chunk, err := range store.Range(t.Context(), notes.Location{Latitude: int32(i)}, notes.Everything) {
				if err != nil {
					t.Fatal(err)
				}
				for _, note := range chunk {
					logs[server] += fmt.Sprintf("%d %s\n", note.Position, note.Encoded)
				}
			}
		}
		if logs[0] != logs[1] {
			t.Errorf("the servers have the logs %s and %s", logs[0], logs[1])
		}
	}
	consistent(t, stores[0])
}

// Messages that are lost, or forbidden, delay announcements.
func TestSubscribeWithoutMessages(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	store := open(t, redisstore.Options{URL: "redis://" + node.Addr})
	heard := newListener()
	defer store.Subscribe(heard.announce)()
	var texts []string
	for i := range 30 {
		node.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
		for j := range 10 {
			texts = append(texts, fmt.Sprint(i, j))
			keep(t, store, notes.Location{Latitude: int32(j)}, texts[len(texts)-1])
		}
	}
	heard.hears(t, texts...)
	node.CLI(t, "ACL", "SETUSER", "default", "-ssubscribe")
	node.CLI(t, "CLIENT", "KILL", "TYPE", "pubsub")
	keep(t, store, notes.Location{}, "without messages")
	heard.hears(t, "without messages")
	heard.missedNothing(t)
}

// A server holds connections and subscriptions for announcements only while somebody subscribes.
func TestSubscribeEndsConnections(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	store := open(t, redisstore.Options{URL: "redis://" + node.Addr})
	channels := func() string { return node.CLI(t, "PUBSUB", "SHARDCHANNELS") }
	await := func(what string, done func() bool) {
		for deadline := time.Now().Add(30 * time.Second); !done(); {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	await("the channel of the check is subscribed", func() bool { return channels() == "" })
	for range 2 {
		first, second := newListener(), newListener()
		end, endSecond := store.Subscribe(first.announce), store.Subscribe(second.announce)
		await("nothing is subscribed", func() bool { return channels() != "" })
		end()
		keep(t, store, notes.Location{}, "a")
		second.hears(t, "a")
		if len(first.heard) > 0 {
			t.Errorf("after the end, %v is announced", first.heard)
		}
		endSecond()
		endSecond() // does nothing
		await("subscriptions are left", func() bool { return channels() == "" && node.CLI(t, "CLIENT", "LIST", "TYPE", "pubsub") == "" })
	}
	// A store that closes ends its subscriptions, too.
	unsubscribe := store.Subscribe(newListener().announce)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	unsubscribe()
	store.Subscribe(newListener().announce)()
}

// blocked is a listener whose first announcement blocks until release is closed.
type blocked struct {
	*listener

	once             sync.Once
	reached, release chan struct{}
}

func newBlocked() *blocked {
	return &blocked{listener: newListener(), reached: make(chan struct{}), release: make(chan struct{})}
}

func (b *blocked) announce(announcement notes.Announcement) {
	b.once.Do(func() {
		close(b.reached)
		<-b.release
	})
	b.listener.announce(announcement)
}

// A subscriber that falls behind by more changes than are kept is told so, and goes on from the end.
func TestSubscribeMissesForgottenChanges(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	store := open(t, redisstore.Options{URL: "redis://" + node.Addr + "?partitions=1"})
	heard := newBlocked()
	defer store.Subscribe(heard.announce)()
	lineage := store.Lineage()
	keep(t, store, notes.Location{}, "first")
	<-heard.reached
	fill(t, store, 100_000)
	close(heard.release)
	heard.await(t, func() bool { return heard.missed[0] == 1 })
	keep(t, store, notes.Location{}, "last")
	heard.hears(t, "first", "last")
	if store.Lineage() != lineage {
		t.Error("the lineage has changed")
	}
}

// Redis has lost notes: subscribers are told that they may have missed some, whatever was written meanwhile.
func TestSubscribeAfterLostChanges(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]int{"behind": 1, "at the same number": 10, "ahead": 15} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node, store, other := openTwo(t)
			here := notes.Location{Latitude: 1}
			partition := partitionOf(t, store, here)
			node.CLI(t, "SAVE")
			heard := newBlocked()
			defer store.Subscribe(heard.announce)()
			for i := range 10 {
				keep(t, other, here, fmt.Sprint("lost", i))
			}
			<-heard.reached // The reader is where it does not see what happens.
			rollBack(t, node)
			lineage := store.Lineage()
			for range again {
				available(t, other, here, "another")
			}
			close(heard.release)
			heard.await(t, func() bool { return heard.missed[partition] > 0 })
			keep(t, other, here, "last")
			heard.hears(t, "last")
			ends(t, other)
			newLineage(t, lineage, store, other)
			consistent(t, store)
		})
	}
}

// A note that is forgotten before it is announced is a change without the note.
func TestSubscribeToForgottenNotes(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	store := open(t, redisstore.Options{URL: "redis://" + node.Addr + "?partitions=1"})
	heard := newBlocked()
	defer store.Subscribe(heard.announce)()
	keep(t, store, notes.Location{}, "first")
	<-heard.reached
	keep(t, store, notes.Location{}, "forgotten")
	if _, err := store.Forget(t.Context(), notes.Now()); err != nil {
		t.Fatal(err)
	}
	keep(t, store, notes.Location{}, "last")
	close(heard.release)
	heard.hears(t, "first", "", "last")
	heard.missedNothing(t)
}

// With replicas, a note that another server has not yet brought to them is neither read nor announced.
func TestReadsAwaitReplicas(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	replica := startReplica(t, master)
	careless := open(t, redisstore.Options{URL: "redis://" + master.Addr + "?partitions=1"})
	store := open(t, redisstore.Options{URL: "redis://" + master.Addr + "?replicas=1"})
	here, elsewhere := notes.Location{Latitude: 1}, notes.Location{Latitude: 2}
	old := keep(t, careless, here, "old")
	keep(t, careless, elsewhere, "old, too")
	texts(t, store, here) // The server knows that these are on replicas.
	heard := newListener()
	defer store.Subscribe(heard.announce)()
	if err := syscall.Kill(replica.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	keep(t, careless, here, "new")
	rangeError := func(location notes.Location, span notes.Span) (last error) {
		for _, err := range store.Range(t.Context(), location, span) {
			last = err
		}
		return last
	}
	if err := rangeError(here, notes.Everything); !errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("a note that is not on replicas: got %v, want notes.ErrUnavailable", err)
	}
	for name, err := range map[string]error{
		"an older note":    rangeError(here, notes.Span{Through: old.Position}),
		"another location": rangeError(elsewhere, notes.Everything),
	} {
		if err != nil {
			t.Errorf("%s cannot be read: %v", name, err)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range store.Range(cancelled, here, notes.Everything) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	}
	heard.mu.Lock()
	if len(heard.heard) > 0 {
		t.Errorf("%v is announced", heard.heard)
	}
	heard.mu.Unlock()
	// Many notes of others: one look tells that all must be on replicas.
	for range 20 {
		keep(t, careless, elsewhere, "one of many")
	}
	if err := rangeError(here, notes.Everything); !errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("a note that is not on replicas: got %v, want notes.ErrUnavailable", err)
	}
	if err := syscall.Kill(replica.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for rangeError(here, notes.Everything) != nil {
	}
	heard.hears(t, "new")
	heard.missedNothing(t)
}
