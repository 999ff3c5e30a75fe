package redisstore_test

import (
	"errors"
	"fmt"
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
	for mastersAmong(t, nodes) < 3 {
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
	t.Logf("%d notes: %d answered, %d of unknown fate, %d not stored", len(fates), answered, unknown, unavailable)
	if len(afterwards) < locations {
		t.Errorf("after the failover, notes were answered at %d of %d locations", len(afterwards), locations)
	}
	if unknown+unavailable == 0 {
		t.Error("no append failed: the failover did not hit a write")
	}
}

// mastersAmong returns the number of running masters.
func mastersAmong(t *testing.T, nodes []*redistest.Node) int {
	t.Helper()
	count := 0
	for _, node := range nodes {
		if node.Running() && node.IsMaster(t) {
			count++
		}
	}
	return count
}
