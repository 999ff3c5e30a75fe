// Package redistest runs Redis servers for tests: one node, or a Redis Cluster.
package redistest

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
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

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)
}

// Running returns whether the node is running.
func (n *Node) Running() bool {
	return n.process.Running()
}
