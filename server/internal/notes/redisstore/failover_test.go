package redisstore_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/routeguide/internal/redistest"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/redisstore"
)

// A master of a cluster is killed under load, and its replica takes over: every answered note is in the store
// once, in the order of its writer, and appends succeed again.
func TestAppendSurvivesFailover(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	nodes := redistest.StartCluster(t)
	url := "redis://" + nodes[0].Addr + "?addr=" + nodes[1].Addr + "&addr=" + nodes[2].Addr
	store := open(t, redisstore.Options{URL: url, Replicas: 1})
	heard := newListener()
	defer open(t, redisstore.Options{URL: url, Replicas: 1}).Subscribe(heard.announce)()
	const writers, locations = 8, 12
	location := func(i int) notes.Location { return notes.Location{Longitude: int32(i % locations)} }

	var mu sync.Mutex // guards fates and afterwards
	fates := make(map[string]error)
	afterwards := make(map[notes.Location]bool) // where a note was answered after the failover
	failedOver := make(chan struct{})
	var writing sync.WaitGroup
	for writer := range writers {
		writing.Go(func() {
			deadline := time.Now().Add(60 * time.Second)
			for i := 0; time.Now().Before(deadline); i++ {
				text := fmt.Sprintf("%02d-%06d", writer, i)
				_, err := notes.Append(t.Context(), store, location(writer+i), draft(text))
				mu.Lock()
				fates[text] = err
				select {
				case <-failedOver:
					if err == nil {
						afterwards[location(writer+i)] = true
					}
				default:
				}
				done := len(afterwards) == locations
				mu.Unlock()
				if done {
					return
				}
				if err != nil {
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond) // some notes at every location
	victim := nodes[1]                 // the first three nodes are the masters
	if !victim.IsMaster(t) {
		t.Fatalf("%s is not a master", victim.Addr)
	}
	victim.Kill(t)
	killed := time.Now()
	for redistest.Masters(t, nodes) < 3 {
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("a replica has taken over after %v", time.Since(killed).Round(10*time.Millisecond))
	// The new master has no replica, so that no note of its locations is answered until the old master is
	// back as its replica.
	victim.Run(t)
	close(failedOver)
	writing.Wait()

	kept := make(map[string]int)
	for i := range locations {
		last := make(map[string]string) // by writer
		for _, text := range texts(t, store, location(i)) {
			kept[text]++
			if writer := text[:2]; text <= last[writer] {
				t.Errorf("%s comes after %s", text, last[writer])
			}
			last[text[:2]] = text
		}
	}
	answered, unknown, unavailable := 0, 0, 0
	for text, err := range fates {
		switch count := kept[text]; {
		case err == nil && count != 1:
			t.Errorf("%s was answered, and is there %d times", text, count)
		case errors.Is(err, notes.ErrUnavailable) && count != 0:
			t.Errorf("%s was said not to be stored (%v), and is there %d times", text, err, count)
		case err != nil && count > 1:
			t.Errorf("%s is there %d times", text, count)
		case err == nil:
			answered++
		case errors.Is(err, notes.ErrUnknown):
			unknown++
		case errors.Is(err, notes.ErrUnavailable):
			unavailable++
		default:
			t.Errorf("%s has the error %v", text, err)
		}
	}
	// Another server has announced what was answered, or says that it may have missed some.
	var announced []string
	for text, err := range fates {
		if err == nil {
			announced = append(announced, text)
		}
	}
	heard.await(t, func() bool {
		for _, text := range announced {
			if heard.heard[text] == 0 && len(heard.missed) == 0 {
				return false
			}
		}
		return true
	})
	for text, count := range heard.heard {
		if count != 1 || kept[text] != 1 && len(heard.missed) == 0 {
			t.Errorf("%s is announced %d times, and is there %d times", text, count, kept[text])
		}
	}
	t.Logf("partitions that have missed changes: %v", heard.missed)
	t.Logf("%d notes: %d answered, %d of unknown fate, %d not stored", len(fates), answered, unknown, unavailable)
	if len(afterwards) < locations {
		t.Errorf("after the failover, notes were answered at %d of %d locations", len(afterwards), locations)
	}
	if unknown+unavailable == 0 {
		t.Error("no append failed: the failover did not hit a write")
	}
}

// Slots move from one master to another and back under load, and then masters hand over to their replicas: nothing is
// lost, kept twice or missed.
func TestStoreWhileSlotsMove(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	for name, replicas := range map[string]int{"": 0, "with replicas": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := redistest.StartCluster(t)
			const partitions, writers = 4, 6
			options := redisstore.Options{URL: fmt.Sprintf("redis://%s?addr=%s&partitions=%d", nodes[0].Addr, nodes[1].Addr, partitions), Replicas: replicas}
			stores := []notes.Store{open(t, options), open(t, options)}
			listeners := []*listener{newListener(), newListener()}
			for i, store := range stores {
				defer store.Subscribe(listeners[i].announce)()
			}
			var mu sync.Mutex // guards fates
			fates := make(map[string]error)
			done := make(chan struct{})
			var writing sync.WaitGroup
			for writer := range writers {
				store := stores[writer%2]
				writing.Go(func() {
					for i := 0; !closed(done); i++ {
						text := fmt.Sprintf("%02d-%06d", writer, i)
						note := draft(text)
						if i%3 == 0 {
							note.ID = text
						}
						// Few of the notes are the first ones of their locations: those wait while a slot moves.
						location := notes.Location{Latitude: int32(i % 20), Longitude: int32(i / 1000)}
						_, err := notes.Append(t.Context(), store, location, note)
						if err != nil && note.ID != "" {
							_, err = notes.Append(t.Context(), store, location, note)
						}
						mu.Lock()
						fates[text] = err
						mu.Unlock()
					}
				})
			}
			for partition := range partitions {
				slot := nodes[0].CLI(t, "CLUSTER", "KEYSLOT", fmt.Sprintf("routeguide:{%d}:changes", partition))
				redistest.MoveSlot(t, nodes, slot, nil, nil)
				redistest.MoveSlot(t, nodes, slot, nil, nil)
			}
			for _, replica := range nodes[3:] {
				replica.CLI(t, "CLUSTER", "FAILOVER") // without a loss
				for !replica.IsMaster(t) {
				}
			}
			close(done)
			writing.Wait()
			var answered []string
			kept := make(map[string]int)
			for location, err := range stores[0].Locations(t.Context(), notes.World, nil) {
				if err != nil {
					t.Fatal(err)
				}
				for _, text := range texts(t, stores[0], location) {
					kept[text]++
				}
			}
			for text, err := range fates {
				switch {
				case err == nil && kept[text] != 1, kept[text] > 1, errors.Is(err, notes.ErrUnavailable) && kept[text] != 0:
					t.Errorf("%s is there %d times: %v", text, kept[text], err)
				case err == nil:
					answered = append(answered, text)
				}
			}
			t.Logf("%d of %d notes were answered", len(answered), len(fates))
			for _, listener := range listeners {
				listener.hears(t, answered...)
				listener.missedNothing(t)
			}
			for _, store := range stores {
				consistent(t, store)
			}
			keep(t, stores[1], notes.Location{Latitude: -1}, "afterwards")
			listeners[0].hears(t, "afterwards")
		})
	}
}

// While a slot moves, its changes may be on another node than the log of a note: then the note is announced later.
func TestSubscribeWhileSlotMoves(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	nodes := redistest.StartCluster(t)
	options := redisstore.Options{URL: "redis://" + nodes[0].Addr + "?partitions=1"}
	writer := open(t, options)
	options.ReadOnly = true // so that it sends nothing but what announcements need
	store := open(t, options)
	heard := newBlocked()
	defer store.Subscribe(heard.announce)()
	keep(t, writer, notes.Location{}, "first")
	<-heard.reached
	keep(t, writer, notes.Location{}, "second")
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	slot := nodes[0].CLI(t, "CLUSTER", "KEYSLOT", "{0}")
	redistest.MoveSlot(t, nodes, slot, []string{"routeguide:{0}:partition", "routeguide:{0}:changes"}, func(to *redistest.Node) {
		close(heard.release)
		for !strings.Contains(to.CLI(t, "INFO", "commandstats"), "cmdstat_asking:") {
		}
	})
	heard.hears(t, "first", "second")
	heard.missedNothing(t)
	if heard.heard[""] > 0 {
		t.Error("a note that is not there yet is announced as forgotten")
	}
}

// While the keys of a batch are on different nodes, Redis runs no script: the batch is sent again.
func TestAppendWhileSlotMoves(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	nodes := redistest.StartCluster(t)
	store := open(t, redisstore.Options{URL: "redis://" + nodes[0].Addr + "?partitions=1"})
	keep(t, store, notes.Location{}, "first")
	slot := nodes[0].CLI(t, "CLUSTER", "KEYSLOT", "{0}")
	appended := make(chan error, 1)
	redistest.MoveSlot(t, nodes, slot, []string{"routeguide:{0}:partition", "routeguide:{0}:changes"}, func(*redistest.Node) {
		go func() {
			_, err := notes.Append(t.Context(), store, notes.Location{}, draft("second"))
			appended <- err
		}()
		for refused := false; !refused; {
			for _, node := range nodes {
				refused = refused || strings.Contains(node.CLI(t, "INFO", "errorstats"), "errorstat_TRYAGAIN:")
			}
		}
	})
	if err := <-appended; err != nil {
		t.Error(err)
	}
	if got := texts(t, store, notes.Location{}); len(got) != 2 {
		t.Errorf("the log is %v", got)
	}
	consistent(t, store)
}
