// Package redistest runs Redis servers for tests: one node, or a Redis Cluster.
package redistest

import (
	"context"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/routeguide/internal/process"
)

// A Node is a Redis server on 127.0.0.1.
type Node struct {
	// Addr is host:port.
	Addr string

	args    []string
	process *process.Process
}

// Start starts a node without persistence, with more arguments for redis-server. The end of the test kills it.
func Start(t *testing.T, args ...string) *Node {
	t.Helper()
	return start(t, freePort(t), "0", args...)
}

// start starts a node. One of port and tlsPort is "0", which disables it.
func start(t *testing.T, port, tlsPort string, args ...string) *Node {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatalf("redis-server is not installed: run `make tools`, or install it with your system's packages: %v", err)
	}
	addr := "127.0.0.1:" + port
	if port == "0" {
		addr = "127.0.0.1:" + tlsPort
	}
	node := &Node{
		Addr: addr,
		args: append([]string{"--port", port, "--tls-port", tlsPort, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "no"}, args...),
	}
	node.Run(t)
	t.Cleanup(func() { node.Kill(t) })
	return node
}

// Run starts the node again, after Kill.
func (n *Node) Run(t *testing.T) {
	t.Helper()
	running, err := process.Start("redis-server", n.args...)
	if err != nil {
		t.Fatal(err)
	}
	n.process = running
	if _, err := running.Await("Ready to accept connections"); err != nil {
		t.Fatal(err)
	}
}

// PID returns the node's process ID.
func (n *Node) PID() int {
	return n.process.PID()
}

// Kill sends SIGKILL to the node. It may be called more than once.
func (n *Node) Kill(t *testing.T) {
	t.Helper()
	if err := n.process.Kill(); err != nil {
		t.Error(err)
	}
}

// CLI runs redis-cli against the node and returns its output.
func (n *Node) CLI(t *testing.T, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(n.Addr)
	if err != nil {
		t.Fatal(err)
	}
	printed, err := process.Run(context.Background(), "redis-cli", append([]string{"-h", host, "-p", port}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(printed)
}

// IsMaster returns whether the node is a master.
func (n *Node) IsMaster(t *testing.T) bool {
	t.Helper()
	return strings.HasPrefix(n.CLI(t, "ROLE"), "master")
}

// Masters returns the number of nodes that run and are masters.
func Masters(t *testing.T, nodes []*Node) int {
	t.Helper()
	count := 0
	for _, node := range nodes {
		if node.Running() && node.IsMaster(t) {
			count++
		}
	}
	return count
}

// StartCluster starts a cluster of three masters and three replicas. The end of the test kills it.
func StartCluster(t *testing.T) []*Node {
	t.Helper()
	nodes := make([]*Node, 6)
	create := []string{"--cluster", "create"}
	for i := range nodes {
		nodes[i] = Start(t, "--cluster-enabled", "yes", "--cluster-port", freePort(t), "--cluster-node-timeout", "1500",
			"--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0")
		create = append(create, nodes[i].Addr)
	}
	if _, err := process.Run(t.Context(), "redis-cli", append(create, "--cluster-replicas", "1", "--cluster-yes")...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, node := range nodes {
		for !node.ready(t) {
			if ctx.Err() != nil {
				t.Fatalf("the cluster is not ready: %s", node.CLI(t, "CLUSTER", "NODES"))
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return nodes
}

// ready returns whether the node sees all six nodes, and replication is online.
func (n *Node) ready(t *testing.T) bool {
	t.Helper()
	info, replication := n.CLI(t, "CLUSTER", "INFO"), n.CLI(t, "INFO", "replication")
	return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:6") &&
		(strings.Contains(replication, "state=online") || strings.Contains(replication, "master_link_status:up"))
}

// MoveSlot moves a slot of a cluster from its master to another one, a few keys at a time. It moves some keys first, and
// then calls midway, if that is not nil, with the other master.
func MoveSlot(t *testing.T, nodes []*Node, slot string, first []string, midway func(to *Node)) {
	t.Helper()
	var from, to *Node
	for _, node := range nodes {
		switch owner := strings.HasPrefix(node.CLI(t, "CLUSTER", "COUNTKEYSINSLOT", slot), "0"); {
		case !node.IsMaster(t):
		case owner:
			to = node
		default:
			from = node
		}
	}
	if from == nil || to == nil {
		t.Fatalf("slot %s has no keys", slot)
	}
	fromID, toID := from.CLI(t, "CLUSTER", "MYID"), to.CLI(t, "CLUSTER", "MYID")
	to.CLI(t, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	from.CLI(t, "CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	host, port, err := net.SplitHostPort(to.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if midway != nil {
		from.CLI(t, append([]string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}, first...)...)
		midway(to)
	}
	// Keys are binary, which redis-cli does not print and read alike: a script moves them.
	const migrate = `local keys = redis.call('CLUSTER', 'GETKEYSINSLOT', ARGV[1], 5)
if #keys > 0 then redis.call('MIGRATE', ARGV[2], ARGV[3], '', 0, 5000, 'KEYS', unpack(keys)) end
return #keys`
	for from.CLI(t, "EVAL", migrate, "0", slot, host, port) != "0" {
	}
	for _, node := range []*Node{to, from} {
		node.CLI(t, "CLUSTER", "SETSLOT", slot, "NODE", toID)
	}
}

// Reshard moves a number of slots of a cluster from one master to another one with redis-cli, which takes the lowest ones, and
// returns once redis-cli finds nothing wrong with the cluster: the nodes agree a moment later.
func Reshard(t *testing.T, from, to *Node, slots int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := process.Run(ctx, "redis-cli", "--cluster", "reshard", from.Addr, "--cluster-from", from.CLI(t, "CLUSTER", "MYID"),
		"--cluster-to", to.CLI(t, "CLUSTER", "MYID"), "--cluster-slots", strconv.Itoa(slots), "--cluster-yes"); err != nil {
		return err
	}
	for {
		_, err := process.Run(ctx, "redis-cli", "--cluster", "check", from.Addr)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// Ports are from below those that Linux gives to outgoing connections, which could take a free one before a node does.
const (
	firstPort = 20_000
	portCount = 12_000
)

// taken are the ports that freePort has returned.
var taken sync.Map

// freePort returns a port that is free, and that it has not returned before.
func freePort(t *testing.T) string {
	t.Helper()
	for range portCount {
		port := strconv.Itoa(firstPort + rand.IntN(portCount))
		if _, again := taken.LoadOrStore(port, true); again {
			continue
		}
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue // Another program has it.
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		return port
	}
	t.Fatalf("no port from %d to %d is free", firstPort, firstPort+portCount-1)
	return ""
}

// Running returns whether the node is running.
func (n *Node) Running() bool {
	return n.process.Running()
}
