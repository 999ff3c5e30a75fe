// Command bench measures our server against grpc-go's RouteGuide server, with grpc-go's client as the
// load for both, and against a bare net/http echo as the floor. The servers are processes and take
// turns, so that what else the machine does falls on all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/process"
)

func main() {
	rounds := flag.Int("rounds", 7, "rounds of each server and mode")
	length := flag.Duration("round", 2*time.Second, "length of a round")
	only := flag.String("only", "", "measure the modes whose names contain this")
	profiles := flag.String("profiles", "", "measure nothing, and write a CPU profile of our server in each mode to this folder")
	flag.Parse()
	if err := run(*rounds, *length, *only, *profiles); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// contestant is a server that is measured.
type contestant struct {
	name    string
	program string
	args    []string
	modes   func(mode) bool // that it can be measured in
	env     []string
	stock   bool // it is grpc-go's, and takes no port 0
	ours    bool
}

func run(rounds int, length time.Duration, only, profiles string) error {
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	all := func(mode) bool { return true }
	contestants := []*contestant{
		{name: "grpc-go", stock: true, modes: all},
		{name: "ours, memory", ours: true, args: []string{"--notes", "memory:", "--listen", "127.0.0.1:0"}, modes: all},
		{name: "ours, pebble", ours: true, args: []string{"--notes", "pebble:" + filepath.Join(folder, "notes"), "--listen", "127.0.0.1:0"}, modes: func(m mode) bool { return m.durable }},
		{name: "ours, GOGC=400", env: []string{"GOGC=400"}, args: []string{"--notes", "memory:", "--listen", "127.0.0.1:0"}, modes: all},
		{name: "bare net/http echo", modes: func(m mode) bool { return m.echo }},
		{name: "net/http echo on wire", args: []string{"-wire"}, modes: func(m mode) bool { return m.echo }},
	}
	for i, build := range []struct{ dir, pkg string }{
		{".", "google.golang.org/grpc/examples/route_guide/server"},
		{"../..", "example.com/routeguide/server"},
		{"../..", "example.com/routeguide/server"},
		{"../..", "example.com/routeguide/server"},
		{".", "example.com/routeguide/internal/interop/floor"},
		{".", "example.com/routeguide/internal/interop/floor"},
	} {
		if contestants[i].program, err = process.Build(build.dir, build.pkg, folder); err != nil {
			return err
		}
	}
	if profiles != "" {
		return profile(contestants, profiles, length, only)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%d rounds of %v in turn; load: grpc-go's client on the same machine; ratios against grpc-go's server: median (min, max)\n", rounds, length)
	fmt.Fprintln(table, "mode\tserver\tnotes/s\tratio\tserver CPU, us per note\tratio")
	for _, mode := range modes {
		if !strings.Contains(mode.name, only) {
			continue
		}
		if err := takeTurns(table, mode, contestants, rounds, length); err != nil {
			return err
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if name := "silent chats"; strings.Contains(name, only) {
		return silent(contestants)
	}
	return nil
}

// takeTurns lets the servers take turns in a mode.
func takeTurns(table *tabwriter.Writer, mode mode, contestants []*contestant, rounds int, length time.Duration) error {
	rates := make(map[*contestant][]float64)
	costs := make(map[*contestant][]float64)
	for range rounds {
		for _, contestant := range contestants {
			if !contestant.modes(mode) {
				continue
			}
			rate, cost, err := contestant.round(mode, length)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", mode.name, contestant.name, err)
			}
			rates[contestant] = append(rates[contestant], rate)
			costs[contestant] = append(costs[contestant], cost)
		}
	}
	reference := contestants[0]
	for _, contestant := range contestants {
		if len(rates[contestant]) > 0 {
			fmt.Fprintf(table, "%s\t%s\t%.0f\t%s\t%.2f\t%s\n", mode.name, contestant.name,
				measure.Median(rates[contestant]), measure.Ratios(rates[contestant], rates[reference]),
				measure.Median(costs[contestant]), measure.Ratios(costs[contestant], costs[reference]))
		}
	}
	return nil
}

// start runs the server and waits until it listens.
func (c *contestant) start() (server *process.Process, address string, err error) {
	args := c.args
	if c.stock {
		port, err := freePort()
		if err != nil {
			return nil, "", err
		}
		args, address = []string{"-port", port}, "localhost:"+port
	}
	if server, err = process.StartWith(c.env, c.program, args...); err != nil {
		return nil, "", err
	}
	if !c.stock {
		match, err := server.Await(`listen=(\S+)`)
		if err != nil {
			return nil, "", errors.Join(err, server.Kill())
		}
		return server, match[1], nil
	}
	if err := awaitListening(address); err != nil {
		return nil, "", errors.Join(err, server.Kill())
	}
	return server, address, nil
}

// round measures a fresh server: notes received in a second, and the server's CPU for each in
// microseconds.
func (c *contestant) round(mode mode, length time.Duration) (rate, cost float64, err error) {
	server, address, err := c.start()
	if err != nil {
		return 0, 0, err
	}
	defer server.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), length+time.Minute)
	defer cancel()
	load, err := newLoad(ctx, address, mode)
	if err != nil {
		return 0, 0, err
	}
	defer load.close()
	if err := load.warm(ctx); err != nil {
		return 0, 0, err
	}
	before, err := measure.CPU(server.PID())
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	received, err := load.run(ctx, length)
	elapsed := time.Since(start)
	if err != nil {
		return 0, 0, err
	}
	after, err := measure.CPU(server.PID())
	if err != nil {
		return 0, 0, err
	}
	return float64(received) / elapsed.Seconds(), float64((after - before).Microseconds()) / float64(received), nil
}
