package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/internal/process"
	"example.com/routeguide/internal/redistest"
	"example.com/routeguide/server/internal/notes"
)

// A faultServer is a server that a test kills and starts again at the same address.
type faultServer struct {
	args    []string
	process *process.Process
	url     string
}

func startFaultServer(t *testing.T, args ...string) *faultServer {
	t.Helper()
	server := &faultServer{args: args}
	server.process, server.url = startProcess(t, args...)
	return server
}

// restart kills the server with SIGKILL, and starts it again.
func (s *faultServer) restart(t *testing.T) {
	t.Helper()
	if err := s.process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.process, _ = startProcess(t, append(s.args, "--listen", strings.TrimPrefix(s.url, "http://"))...)
}

func (s *faultServer) stop(t *testing.T) {
	t.Helper()
	if err := s.process.Stop(); err != nil {
		t.Error(err)
	}
}

func skipIfShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
}

// Followers of a server that is killed again and again miss nothing.
func TestFollowersSurviveKill9(t *testing.T) {
	t.Parallel()
	skipIfShort(t)
	server := startFaultServer(t, "--store", "pebble:"+filepath.Join(t.TempDir(), "notes"))
	crowd := newCrowd(t, server.url)
	crowd.start(t)
	for range 6 {
		crowd.progress(t, 1+rand.IntN(100))
		server.restart(t)
	}
	crowd.conclude(t, server)
}

// Followers whose connections are cut after random numbers of bytes miss nothing.
func TestFollowersSurviveCutConnections(t *testing.T) {
	t.Parallel()
	skipIfShort(t)
	server := startFaultServer(t, "--store", "memory:")
	proxy := startCutter(t, strings.TrimPrefix(server.url, "http://"))
	crowd := newCrowd(t, "http://"+proxy.listener.Addr().String())
	crowd.start(t)
	proxy.cutting.Store(true)
	crowd.follow(t, 20, crowd.locations[3], connect.WithGRPC())
	eventuallyWithin(t, faultTimeout, "connections are cut", func() bool { return proxy.cuts.Load() >= 200 })
	proxy.cutting.Store(false)
	crowd.finish(t)
	crowd.check(t, crowd.read(t))
	t.Logf("%d connections cut", proxy.cuts.Load())
}

// A cutter is a TCP proxy that cuts each connection after a random number of bytes from the server.
type cutter struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup
	cutting  atomic.Bool
	cuts     atomic.Int64

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

// maxUncut is the largest number of bytes from the server before a connection is cut.
const maxUncut = 16 << 10

func startCutter(t *testing.T, server string) *cutter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cutter := &cutter{listener: listener, server: server, conns: make(map[net.Conn]struct{})}
	cutter.running.Go(cutter.run)
	t.Cleanup(func() {
		_ = listener.Close()
		cutter.mu.Lock()
		for conn := range cutter.conns {
			_ = conn.Close()
		}
		cutter.mu.Unlock()
		cutter.running.Wait()
	})
	return cutter
}

func (c *cutter) run() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		c.mu.Lock()
		c.conns[client], c.conns[server] = struct{}{}, struct{}{}
		c.mu.Unlock()
		c.running.Go(func() {
			defer client.Close()
			defer server.Close()
			_, _ = io.Copy(server, client)
		})
		c.running.Go(func() {
			defer client.Close()
			defer server.Close()
			for {
				_, err := io.CopyN(client, server, rand.Int64N(maxUncut))
				if err != nil {
					return
				}
				if c.cutting.Load() {
					c.cuts.Add(1)
					return
				}
			}
		})
	}
}

// Followers of two servers on one Redis hear both, and miss nothing while the servers and Redis are killed.
func TestFollowersOfTwoServersSurviveKill9(t *testing.T) {
	t.Parallel()
	skipIfShort(t)
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	args := []string{"--store", "redis://" + redis.Addr}
	servers := []*faultServer{startFaultServer(t, args...), startFaultServer(t, args...)}
	crowd := newCrowd(t, servers[0].url, servers[1].url)
	crowd.start(t)
	for i := range 4 {
		crowd.progress(t, 1+rand.IntN(50))
		servers[i%2].restart(t)
	}
	for range 2 {
		crowd.progress(t, 1+rand.IntN(50))
		redis.Kill(t)
		redis.Run(t)
	}
	crowd.conclude(t, servers...)
}

// Followers of two servers on a Redis Cluster miss nothing while slots move and masters fail over.
func TestFollowersSurviveFailover(t *testing.T) {
	t.Parallel()
	skipIfShort(t)
	const partitions = 4
	nodes, servers, crowd := newClusterCrowd(t, partitions, []string{"--redis-replicas", "1"}, []string{"--redis-replicas", "1"})
	crowd.start(t)
	for partition := range partitions {
		slot := slotOf(t, nodes[0], partition)
		if hasKeys(t, nodes, slot) {
			redistest.MoveSlot(t, nodes, slot, nil, nil)
			crowd.progress(t, 1)
		}
	}
	nodes[3].CLI(t, "CLUSTER", "FAILOVER") // without a loss
	for !nodes[3].IsMaster(t) {
	}
	crowd.progress(t, 20)
	for _, node := range nodes[:3] {
		if node.IsMaster(t) {
			node.Kill(t)
			eventuallyWithin(t, faultTimeout, "a replica takes over", func() bool { return redistest.Masters(t, nodes) == 3 })
			node.Run(t) // as a replica: notes need one
			break
		}
	}
	crowd.progress(t, 20)
	crowd.conclude(t, servers...)
}

// Followers of two servers on a Redis Cluster miss nothing, and are not reset, while redis-cli moves all that they follow from master to
// master and back. Their calls end each second, so that they also read what they follow while it moves. One server does not wait for
// replicas: it sends notes to Redis another way.
func TestFollowersSurviveReshard(t *testing.T) {
	t.Parallel()
	skipIfShort(t)
	const partitions, rounds = 16, 2
	nodes, servers, crowd := newClusterCrowd(t, partitions, []string{"--redis-replicas", "1", "--max-chat-age", "1s"}, []string{"--max-chat-age", "1s"})
	// redis-cli takes the lowest slots, a millisecond each: these locations are in the low ones of the first two masters.
	for i, at := range []int32{1, 2, 4, 5, 20} {
		crowd.locations[i] = &routeguide.Point{Latitude: at, Longitude: at}
	}
	crowd.pause = 10 * time.Millisecond // Each note is a key more to move.
	crowd.start(t)
	owners := make(map[int]*redistest.Node) // by partition that has notes
	for partition := range partitions {
		for _, master := range nodes[:3] {
			if keysIn(t, master, slotOf(t, master, partition)) > 1 { // not only its lineage
				owners[partition] = master
			}
		}
	}
	began, moved := time.Now(), 0
	for range rounds {
		for _, move := range []struct{ from, to, slots int }{{0, 1, 248}, {1, 0, 248}, {1, 2, 321}, {2, 1, 321}} {
			from, to := nodes[move.from], nodes[move.to]
			if err := redistest.Reshard(t, from, to, move.slots); err != nil {
				t.Fatal(err)
			}
			for partition, owner := range owners {
				if owner != from || keysIn(t, to, slotOf(t, to, partition)) == 0 {
					continue
				}
				owners[partition] = to
				moved++
				eventuallyWithin(t, faultTimeout, "both servers subscribe where the partition is now", func() bool {
					return strings.HasSuffix(to.CLI(t, "PUBSUB", "SHARDNUMSUB", fmt.Sprintf("routeguide:{%d}:wake", partition)), "\n2")
				})
			}
			crowd.progress(t, 1)
		}
	}
	t.Logf("partitions with notes were moved %d times in %v", moved, time.Since(began).Round(time.Millisecond))
	if want := 2 * rounds * len(owners); moved != want {
		t.Errorf("want %d times", want)
	}
	if !slices.ContainsFunc(nodes, func(node *redistest.Node) bool {
		return strings.Contains(node.CLI(t, "INFO", "errorstats"), "errorstat_TRYAGAIN:")
	}) {
		t.Error("nobody has met a slot that moves")
	}
	if total := crowd.conclude(t, servers...); total.resets > 0 {
		t.Errorf("followers were reset %d times", total.resets)
	}
}

// newClusterCrowd starts a Redis Cluster, servers with some arguments on it, and their crowd.
func newClusterCrowd(t *testing.T, partitions int, args ...[]string) (nodes []*redistest.Node, servers []*faultServer, crowd *crowd) {
	t.Helper()
	nodes = redistest.StartCluster(t)
	store := fmt.Sprintf("redis://%s?addr=%s&addr=%s&partitions=%d", nodes[0].Addr, nodes[1].Addr, nodes[2].Addr, partitions)
	var urls []string
	for _, own := range args {
		server := startFaultServer(t, append([]string{"--store", store}, own...)...)
		servers, urls = append(servers, server), append(urls, server.url)
	}
	return nodes, servers, newCrowd(t, urls...)
}

// slotOf returns the slot of a partition of the store, which any node knows.
func slotOf(t *testing.T, node *redistest.Node, partition int) string {
	t.Helper()
	return node.CLI(t, "CLUSTER", "KEYSLOT", fmt.Sprintf("routeguide:{%d}:changes", partition))
}

// keysIn returns the number of keys that a node has in a slot.
func keysIn(t *testing.T, node *redistest.Node, slot string) int {
	t.Helper()
	count, err := strconv.Atoi(node.CLI(t, "CLUSTER", "COUNTKEYSINSLOT", slot))
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// hasKeys returns whether a slot has keys.
func hasKeys(t *testing.T, nodes []*redistest.Node, slot string) bool {
	t.Helper()
	for _, node := range nodes {
		if keysIn(t, node, slot) > 0 {
			return true
		}
	}
	return false
}

// Retention overtakes followers that do not read, or are away: they are told so.
func TestRetentionResetsFollowers(t *testing.T) {
	t.Parallel()
	skipIfShort(t)
	server := startFaultServer(t, "--store", "memory:", "--retention", "4s")
	crowd := newCrowd(t, server.url)
	crowd.locations = crowd.locations[:2]
	crowd.padding = " " + strings.Repeat("x", 16<<10)
	healthy := crowd.follow(t, snapshotSize, everywhere, connect.WithGRPC())
	hold := make(chan struct{})
	var held []*listener
	for _, filter := range []any{crowd.locations[0], everywhere} {
		for _, away := range []bool{false, true} {
			listener := crowd.follow(t, snapshotSize, filter, connect.WithGRPC())
			listener.mu.Lock()
			listener.hold, listener.away = hold, away
			listener.mu.Unlock()
			held = append(held, listener)
		}
	}
	eventuallyWithin(t, faultTimeout, "a follower is current", healthy.isCurrent)
	crowd.leaveNotes(t, 2)
	for _, listener := range held {
		eventuallyWithin(t, faultTimeout, "a follower is held", listener.isHeld)
	}
	const enough = 1200 // at two locations: the client of one that does not read takes 4 MiB
	before, began := healthy.received(), time.Now()
	eventuallyWithin(t, faultTimeout, "enough notes are left", func() bool { return healthy.received() >= before+enough })
	later := healthy.received()
	eventuallyWithin(t, faultTimeout, "retention forgets these notes", func() bool {
		newest := crowd.snapshot(t, crowd.locations[0])
		healthy.mu.Lock()
		defer healthy.mu.Unlock()
		texts := healthy.segments[0][locationOf(crowd.locations[0])].texts
		return !slices.Contains(newest, texts[min(len(texts)-1, later/len(crowd.locations))])
	})
	t.Logf("%v until retention has forgotten %d notes", time.Since(began).Round(time.Millisecond), later)
	close(hold)
	for _, listener := range held {
		eventuallyWithin(t, faultTimeout, "a follower is reset", func() bool { return listener.resets() > 0 })
	}
	crowd.finish(t)
	if healthy.resets() > 0 {
		t.Errorf("a follower that reads is reset %d times", healthy.resets())
	}
	logs := make(map[notes.Location][]string)
	for location, log := range healthy.segments[0] {
		logs[location] = log.texts
	}
	crowd.check(t, logs)
	server.stop(t)
}

// Redis loses its notes while they are followed: followers are told so, and hear what is left afterwards.
func TestLostStoreResetsFollowers(t *testing.T) {
	t.Parallel()
	skipIfShort(t)
	redis := redistest.Start(t)
	server := startFaultServer(t, "--store", "redis://"+redis.Addr, "--retention", "1h")
	crowd := newCrowd(t, server.url)
	for _, location := range crowd.locations[:2] {
		crowd.follow(t, snapshotSize, location, connect.WithGRPC())
	}
	crowd.follow(t, snapshotSize, everywhere, connect.WithGRPC())
	client, end := crowd.client(t, 0, connect.WithGRPC())
	defer end()
	clients := []routeguidev1connect.NoteServiceClient{client}
	for _, listener := range crowd.listeners {
		eventuallyWithin(t, faultTimeout, "a follower is current", listener.isCurrent)
	}
	for i := range 3 {
		crowd.leave(t, clients, crowd.locations[0], fmt.Sprintf("w0-%06d", i))
	}
	for _, listener := range []*listener{crowd.listeners[0], crowd.listeners[2]} {
		eventuallyWithin(t, faultTimeout, "a follower receives notes", func() bool { return listener.received() == 3 })
	}
	redis.Kill(t)
	redis.Run(t)
	for _, listener := range crowd.listeners {
		eventuallyWithin(t, faultTimeout, listener.name+" is reset", func() bool { return listener.resets() > 0 })
	}
	crowd.left = nil
	crowd.finish(t)
	crowd.checkLeft(t, crowd.read(t))
	server.stop(t)
}
