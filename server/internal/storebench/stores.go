package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"

	"example.com/routeguide/internal/process"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/notes/pebblestore"
	"example.com/routeguide/server/internal/notes/redisstore"
)

// contestant is a store under test.
type contestant struct {
	name string
	pids []int // processes whose CPU time counts
	open func(round int) (notes.Store, error)

	results []result // of the rounds
}

// contestants returns the stores to measure, and a function that releases what they need. Memory is the reference.
func (b *bench) contestants(grown *pebblestore.Store) (reference *contestant, all []*contestant, release func(), err error) {
	self := os.Getpid()
	memory := &contestant{name: "memory", pids: []int{self}, open: func(int) (notes.Store, error) { return memorystore.New(), nil }}
	all = []*contestant{
		{name: "none", pids: []int{self}, open: func(int) (notes.Store, error) { return &none{}, nil }},
		memory,
	}
	release = func() {}
	if b.Only == "" || b.Only == "pebble" {
		all = append(all, &contestant{name: "pebble", pids: []int{self}, open: func(round int) (notes.Store, error) {
			if grown != nil {
				return keptOpen{grown}, nil
			}
			return pebblestore.Open(pebblestore.Options{Dir: filepath.Join(b.scratch, fmt.Sprint("round", round))})
		}})
	}
	if b.Only == "" || b.Only == "redis" {
		redis, address, err := startRedis(b.scratch)
		if err != nil {
			return nil, nil, nil, err
		}
		release = func() { _ = redis.Kill() }
		all = append(all, &contestant{name: "redis", pids: []int{self, redis.PID()}, open: func(int) (notes.Store, error) {
			return redisstore.Open(redisstore.Options{URL: "redis://" + address})
		}})
	}
	return memory, all, release, nil
}

// keptOpen is a store that stays open after a round: the next one finds its caches as they are in a server that runs.
type keptOpen struct{ notes.Store }

func (keptOpen) Close() error { return nil }

// openFolder opens the folder that grows.
func (b *bench) openFolder() (*pebblestore.Store, error) {
	return pebblestore.Open(pebblestore.Options{Dir: b.folder})
}

func startRedis(dir string) (*process.Process, string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, "", err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, "", err
	}
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, "", fmt.Errorf("install redis-server, or run `make tools`: %w", err)
	}
	redis, err := process.Start("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes")
	if err != nil {
		return nil, "", err
	}
	if _, err := redis.Await("Ready to accept connections"); err != nil {
		_ = redis.Kill()
		return nil, "", err
	}
	return redis, address, nil
}

// none settles each note at once, as if it were alone, and keeps nothing. The harness calls no other methods of it than
// these.
type none struct {
	notes.Store

	last atomic.Uint64 // position
}

func (n *none) Append(_ context.Context, _ notes.Location, note notes.Note, ticket notes.Ticket) {
	ticket.Settle(notes.Receipt{Position: notes.Position(n.last.Add(1)), Time: note.Time, Alone: true}, nil)
}

func (n *none) Close() error { return nil }
