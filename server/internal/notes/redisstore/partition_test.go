package redisstore_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/routeguide/internal/redistest"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/redisstore"
)

func keep(t *testing.T, store notes.Store, location notes.Location, text string) notes.Receipt {
	t.Helper()
	receipt, err := notes.Append(t.Context(), store, location, draft(text))
	if err != nil {
		t.Fatal(err)
	}
	return receipt
}

func ends(t *testing.T, store notes.Store) []notes.Sequence {
	t.Helper()
	ends, err := store.Ends(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ends
}

// partitionOf returns the partition of a location, which gets a note.
func partitionOf(t *testing.T, store notes.Store, location notes.Location) int {
	t.Helper()
	before := ends(t, store)
	keep(t, store, location, "a")
	for partition, end := range ends(t, store) {
		if end != before[partition] {
			return partition
		}
	}
	t.Fatal("a note is no change")
	return 0
}

// A store without a record is created, unless Redis has notes in the first layout.
func TestOpenRefusesFirstLayout(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	for i := range 3000 {
		node.CLI(t, "SET", fmt.Sprint("other:{", i, ",1}"), "x")
		if i > 20 {
			break
		}
	}
	node.CLI(t, "RPUSH", "routeguide:{407838351,-746143763}", "0", "12345678note")
	for _, readOnly := range []bool{false, true} {
		store, err := redisstore.Open(redisstore.Options{URL: "redis://" + node.Addr, ReadOnly: readOnly})
		if err == nil {
			_ = store.Close()
			t.Fatal("no error")
		}
		for _, want := range []string{"routeguide:{407838351,-746143763}", "older version", "export", "commit 49afcf0"} {
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, want)
			}
		}
	}
	if keys := node.CLI(t, "EXISTS", "routeguide:store"); keys != "0" {
		t.Error("a store was created")
	}
	node.CLI(t, "DEL", "routeguide:{407838351,-746143763}")
	store := open(t, redisstore.Options{URL: "redis://" + node.Addr})
	keep(t, store, notes.Location{}, "a")
	consistent(t, store)
}

// The number of partitions is that of the store, once it is created.
func TestOpenPartitions(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]int{"": 16, "?partitions=1": 1, "?partitions=5": 5} {
		node := redistest.Start(t)
		address := "redis://" + node.Addr
		keep(t, open(t, redisstore.Options{URL: address + url}), notes.Location{}, "a")
		for _, again := range []string{"", fmt.Sprint("?partitions=", want)} {
			store := open(t, redisstore.Options{URL: address + again})
			if got := len(ends(t, store)); got != want {
				t.Errorf("the store has %d partitions, want %d", got, want)
			}
			if got := texts(t, store, notes.Location{}); len(got) != 1 {
				t.Errorf("the log is %v", got)
			}
		}
		store, err := redisstore.Open(redisstore.Options{URL: address + "?partitions=6"})
		if err == nil {
			_ = store.Close()
			t.Error("no error for another number of partitions")
		} else if !strings.Contains(err.Error(), fmt.Sprintf("created with %d partitions", want)) {
			t.Errorf("got %v", err)
		}
	}
	node := redistest.Start(t)
	node.CLI(t, "SET", "routeguide:store", "layout=3 partitions=64")
	if store, err := redisstore.Open(redisstore.Options{URL: "redis://" + node.Addr}); !errors.Is(err, notes.ErrDamaged) {
		t.Errorf("the layout of another version: got %v, %v", store, err)
	}
}

// Servers that create a store at the same time agree on one number of partitions.
func TestOpenConcurrently(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	const servers = 8
	counts := make([]int, servers)
	var opening sync.WaitGroup
	for i := range servers {
		opening.Go(func() {
			store, err := redisstore.Open(redisstore.Options{URL: fmt.Sprintf("redis://%s?partitions=%d", node.Addr, i%4+1)})
			if err != nil {
				if !strings.Contains(err.Error(), "cannot change") {
					t.Error(err)
				}
				return
			}
			keep(t, store, notes.Location{}, "a")
			counts[i] = len(ends(t, store))
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	opening.Wait()
	count := len(ends(t, open(t, redisstore.Options{URL: "redis://" + node.Addr})))
	for i := range counts {
		if counts[i] != 0 && counts[i] != count || counts[i] == 0 && i%4+1 == count {
			t.Errorf("server %d has %d partitions, and the store %d", i, counts[i], count)
		}
	}
}

// What others keep in the same Redis does not disturb, and is not touched.
func TestStoreBesideOtherKeys(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	others := map[string]string{"routeguide": "1", "{0}": "2", "store": "3", "other:{0}:index": "4", "routeguide:cache": "5"}
	for key, value := range others {
		node.CLI(t, "SET", key, value)
	}
	store := open(t, redisstore.Options{URL: "redis://" + node.Addr})
	for i := range int32(100) {
		keep(t, store, notes.Location{Latitude: i}, "a")
	}
	consistent(t, store)
	if count, err := store.Forget(t.Context(), notes.Now()); count != 100 || err != nil {
		t.Errorf("Forget: %d, %v", count, err)
	}
	for key, value := range others {
		if got := node.CLI(t, "GET", key); got != value {
			t.Errorf("%s is %q, and was %q", key, got, value)
		}
	}
}

// Redis knows an ID for 24 hours from the time of its note on.
func TestIDExpires(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	store := open(t, redisstore.Options{URL: "redis://" + node.Addr})
	left := func() string {
		return node.CLI(t, "EVAL", "local keys = redis.call('KEYS', 'routeguide:*:id:*'); return #keys == 1 and redis.call('PTTL', keys[1]) or -#keys", "0")
	}
	note := func(age time.Duration) notes.Note {
		return notes.Note{Time: notes.Now() - age.Nanoseconds(), ID: "id", Encoded: []byte("a")}
	}
	for age, want := range map[time.Duration]time.Duration{0: 24 * time.Hour, 23 * time.Hour: time.Hour} {
		location := notes.Location{Latitude: int32(age / time.Hour)}
		if _, err := notes.Append(t.Context(), store, location, note(age)); err != nil {
			t.Fatal(err)
		}
		ttl, err := time.ParseDuration(left() + "ms")
		if err != nil || ttl > want || ttl < want-time.Minute {
			t.Errorf("the ID of a note of %v ago expires in %v, %v, want %v", age, ttl, err, want)
		}
		node.CLI(t, "EVAL", "return redis.call('DEL', unpack(redis.call('KEYS', 'routeguide:*:id:*')))", "0")
	}
	for _, old := range []time.Duration{25 * time.Hour, 25 * time.Hour, 100 * 365 * 24 * time.Hour} { // as an import brings them
		if _, err := notes.Append(t.Context(), store, notes.Location{}, note(old)); err != nil {
			t.Fatal(err)
		}
	}
	if got := left(); got != "0" {
		t.Errorf("the ID of an old note is kept for %s ms", got)
	}
	// The ID of the first of these expires soon.
	here := notes.Location{Latitude: 1000}
	first, err := notes.Append(t.Context(), store, here, note(24*time.Hour-500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for receipt := first; receipt.Position == first.Position && time.Now().Before(deadline); {
		if receipt, err = notes.Append(t.Context(), store, here, note(0)); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(t, store, here); len(got) != 2 {
		t.Errorf("the log is %v, want a second note once the ID of the first has expired", got)
	}
}

// FLUSHALL under running servers leaves an empty store of the same kind, with another lineage.
func TestFlushAllWhileServing(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	options := redisstore.Options{URL: "redis://" + node.Addr + "?partitions=3"}
	store, other := open(t, options), open(t, options)
	for i := range int32(10) {
		keep(t, store, notes.Location{Latitude: i}, "lost")
		keep(t, other, notes.Location{Latitude: i}, "lost")
	}
	heard := newListener()
	defer other.Subscribe(heard.announce)()
	lineage := store.Lineage()
	if other.Lineage() != lineage {
		t.Errorf("two servers have the lineages %s and %s", lineage, other.Lineage())
	}
	node.CLI(t, "FLUSHALL")
	for i := range int32(10) {
		if receipt := keep(t, store, notes.Location{Latitude: i}, "kept"); receipt.Position != 1 || !receipt.Alone {
			t.Errorf("the receipt is %v", receipt)
		}
		keep(t, other, notes.Location{Latitude: i}, "kept, too")
	}
	ends(t, store)
	ends(t, other)
	newLineage(t, lineage, store, other)
	if got := len(ends(t, open(t, redisstore.Options{URL: "redis://" + node.Addr}))); got != 3 {
		t.Errorf("the store has %d partitions, want 3", got)
	}
	consistent(t, store)
	heard.await(t, func() bool { return len(heard.missed) == 3 })
}

// After FLUSHALL, another server may create a store with another number of partitions. This server writes nothing
// into that.
func TestStoreReplacedWhileServing(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	store, health := opened(t, node, redisstore.Options{})
	keep(t, store, notes.Location{}, "a")
	node.CLI(t, "FLUSHALL")
	node.CLI(t, "SET", "routeguide:store", "layout=2 partitions=7") // as fast as no other server
	other := open(t, redisstore.Options{URL: "redis://" + node.Addr})
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("b")); !errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("got %v, want notes.ErrUnavailable", err)
	}
	awaitHealth(t, health, "restart")
	for i := range int32(30) {
		if _, err := notes.Append(t.Context(), store, notes.Location{Latitude: i}, draft("b")); !errors.Is(err, notes.ErrUnavailable) {
			t.Errorf("got %v, want notes.ErrUnavailable", err)
		}
		keep(t, other, notes.Location{Latitude: i}, "c")
	}
	consistent(t, other)
}

// The record of the store may be lost alone, as by a failover right after the store was created.
func TestRecordIsRestored(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	open(t, redisstore.Options{URL: "redis://" + node.Addr + "?partitions=3"})
	node.CLI(t, "DEL", "routeguide:store")
	for deadline := time.Now().Add(30 * time.Second); node.CLI(t, "GET", "routeguide:store") != "layout=2 partitions=3"; {
		if time.Now().After(deadline) {
			t.Fatal("the record is not restored")
		}
	}
}

// rollBack kills Redis, and starts it again with what it had at the last SAVE: a failover to a replica that is behind.
func rollBack(t *testing.T, node *redistest.Node) {
	t.Helper()
	node.Kill(t)
	node.Run(t)
}

// available appends until Redis is back.
func available(t *testing.T, store notes.Store, location notes.Location, text string) notes.Receipt {
	t.Helper()
	for {
		receipt, err := notes.Append(t.Context(), store, location, draft(text))
		if err == nil {
			return receipt
		}
		if !errors.Is(err, notes.ErrUnavailable) && !errors.Is(err, notes.ErrUnknown) {
			t.Fatal(err)
		}
	}
}

// newLineage fails the test unless two stores have one lineage, and another one than before.
func newLineage(t *testing.T, before string, store, other *redisstore.Store) {
	t.Helper()
	if store.Lineage() == before || store.Lineage() != other.Lineage() {
		t.Errorf("the lineages are %s and %s, and were %s", store.Lineage(), other.Lineage(), before)
	}
}

// openTwo returns a node, and two stores in it.
func openTwo(t *testing.T) (node *redistest.Node, store, other *redisstore.Store) {
	t.Helper()
	node = redistest.Start(t)
	options := redisstore.Options{URL: "redis://" + node.Addr}
	return node, open(t, options), open(t, options)
}

// Redis has lost notes, and gives their positions and numbers again: the lineage changes with the first write of a
// server that knows one of them, even if another server has written as many notes again meanwhile.
func TestLineageAfterLostChanges(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]int{"behind": 0, "at the same number": 10, "ahead": 15} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node, store, other := openTwo(t)
			here := notes.Location{Latitude: 1}
			partition := partitionOf(t, store, here)
			node.CLI(t, "SAVE")
			for range 10 {
				keep(t, store, here, "lost")
			}
			lost := ends(t, store)[partition]
			lineage := store.Lineage()
			rollBack(t, node)
			for range again {
				available(t, other, here, "another")
			}
			if again == 0 {
				ends(t, other) // which may be its first call since, and fails no call of the next lines
			}
			if again < 10 {
				for _, err := range other.Changes(t.Context(), partition, lost) {
					if !errors.Is(err, notes.ErrOutOfRange) {
						t.Errorf("a lost change is replayed: %v", err)
					}
				}
			}
			available(t, store, here, "last")
			ends(t, other)
			newLineage(t, lineage, store, other)
			lineage = store.Lineage()
			for range 3 {
				keep(t, store, here, "last")
				keep(t, other, here, "last")
			}
			if store.Lineage() != lineage {
				t.Error("the lineage changes without a loss")
			}
			consistent(t, store)
		})
	}
}

// A server that is idle, or has only read what is lost, notices it, too.
func TestLineageOfIdleServers(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]int{"behind": 0, "at the same number": 10, "ahead": 15} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node, store, other := openTwo(t)
			here := notes.Location{Latitude: 1}
			keep(t, other, here, "a")
			node.CLI(t, "SAVE")
			for range 10 {
				keep(t, other, here, "lost")
			}
			ends(t, store)
			lineage := store.Lineage()
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			rollBack(t, node)
			if again > 0 {
				third := open(t, redisstore.Options{URL: "redis://" + node.Addr})
				for range again {
					keep(t, third, here, "another")
				}
				available(t, store, here, "last")
			}
			for deadline := time.Now().Add(30 * time.Second); store.Lineage() == lineage; {
				if time.Now().After(deadline) {
					t.Fatal("the lineage does not change")
				}
			}
		})
	}
}

// The cap of the changes is no loss: it does not change the lineage.
func TestLineageWithManyChanges(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	options := redisstore.Options{URL: "redis://" + node.Addr + "?partitions=1"}
	store, idle := open(t, options), open(t, options)
	keep(t, idle, notes.Location{}, "a")
	lineage := store.Lineage()
	fill(t, store, 100_000)
	end := ends(t, store)[0]
	for from, want := range map[notes.Sequence]error{1: notes.ErrOutOfRange, end - 65_000: nil} {
		for _, err := range store.Changes(t.Context(), 0, from) {
			if !errors.Is(err, want) {
				t.Errorf("changes from %d to %d: got %v, want %v", from, end, err, want)
			}
		}
	}
	if bytes, err := strconv.Atoi(node.CLI(t, "MEMORY", "USAGE", "routeguide:{0}:changes", "SAMPLES", "0")); err != nil || bytes > 2<<20 {
		t.Errorf("the changes take %d bytes, %v", bytes, err)
	}
	keep(t, idle, notes.Location{}, "b")
	if store.Lineage() != lineage || idle.Lineage() != lineage {
		t.Errorf("the lineage has changed from %s to %s, %s", lineage, store.Lineage(), idle.Lineage())
	}
}

// fill appends notes without waiting for each, at so many locations that a script adds a whole group to the index.
func fill(t *testing.T, store notes.Store, count int) {
	t.Helper()
	settled := make(fates, count)
	for i := range count {
		store.Append(t.Context(), notes.Location{Longitude: int32(i % 10_000)}, draft("a"), notes.Ticket{Owner: settled})
	}
	for range count {
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
	}
}
