// Command bench compares our server with grpc-go's RouteGuide server, under the load of grpc-go's client, and with a
// bare net/http echo as the lower bound. The servers are processes. Their rounds are interleaved, so that noise of the
// machine affects all of them.
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
	var options options
	flag.IntVar(&options.rounds, "rounds", 15, "number of rounds of each server and mode")
	flag.DurationVar(&options.length, "round", 500*time.Millisecond, "length of a round")
	flag.StringVar(&options.only, "only", "", "measure only modes whose names contain this")
	flag.BoolVar(&options.variants, "variants", false, "compare our server with itself, built with PGO, and with other GOGC settings")
	flag.StringVar(&options.profiles, "profiles", "", "write a CPU profile of our server in each mode to this folder, instead of measuring")
	flag.Parse()
	if err := run(&options); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds   int
	length   time.Duration
	only     string
	variants bool
	profiles string
}

// contestant is a server under test.
type contestant struct {
	name    string
	dir     string // a folder in the module of pkg
	pkg     string
	flags   []string // of go build
	args    []string
	env     []string
	modes   func(mode) bool // whether to measure a mode
	stock   bool            // grpc-go's server, which does not support port 0
	ours    bool
	program string // path of the binary
}

const (
	stockServer = "google.golang.org/grpc/examples/route_guide/server"
	ourServer   = "example.com/routeguide/server"
	floor       = "example.com/routeguide/internal/interop/floor"
)

func allModes(mode) bool { return true }

// allContestants returns the servers under test. The first one is the reference.
func allContestants(folder string) []*contestant {
	echo := func(m mode) bool { return m.echo }
	return []*contestant{
		{name: "grpc-go", dir: ".", pkg: stockServer, stock: true, modes: allModes},
		{name: "ours, memory", dir: "../..", pkg: ourServer, args: memory(), modes: allModes, ours: true},
		{
			name: "ours, pebble", dir: "../..", pkg: ourServer, ours: true,
			args:  []string{"--store", "pebble:" + filepath.Join(folder, "notes"), "--listen", "127.0.0.1:0"},
			modes: func(m mode) bool { return m.durable },
		},
		{name: "bare net/http echo", dir: ".", pkg: floor, modes: echo},
		{name: "net/http echo on wire", dir: ".", pkg: floor, args: []string{"-wire"}, modes: echo},
	}
}

func memory() []string { return []string{"--store", "memory:", "--listen", "127.0.0.1:0"} }

// variants returns our server as it is released, and with other build and runtime settings.
func variants(folder string) ([]*contestant, error) {
	plain := &contestant{name: "default", dir: "../..", pkg: ourServer, args: memory(), modes: allModes, ours: true}
	if err := build([]*contestant{plain}, folder); err != nil {
		return nil, err
	}
	merged := filepath.Join(folder, "merged.pprof")
	if err := mergedProfile([]*contestant{plain}, folder, merged); err != nil {
		return nil, err
	}
	return []*contestant{
		plain,
		{name: "PGO", dir: "../..", pkg: ourServer, flags: []string{"-pgo=" + merged}, args: memory(), modes: allModes},
		{name: "GOGC=200", dir: "../..", pkg: ourServer, env: []string{"GOGC=200"}, args: memory(), modes: allModes},
		{name: "GOGC=400", dir: "../..", pkg: ourServer, env: []string{"GOGC=400"}, args: memory(), modes: allModes},
	}, nil
}

func build(contestants []*contestant, folder string) error {
	for _, contestant := range contestants {
		program, err := process.Build(contestant.dir, contestant.pkg, folder, contestant.flags...)
		if err != nil {
			return err
		}
		contestant.program = program
	}
	return nil
}

func run(options *options) error {
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	contestants := allContestants(folder)
	if options.variants {
		if contestants, err = variants(folder); err != nil {
			return err
		}
	}
	if err := build(contestants, folder); err != nil {
		return err
	}
	if options.profiles != "" {
		return profile(contestants, options.profiles, 10*options.length, options.only)
	}
	if err := throughput(contestants, options); err != nil {
		return err
	}
	if options.variants {
		return nil
	}
	if strings.Contains(latencyName, options.only) {
		if err := latency(contestants, options, folder); err != nil {
			return err
		}
	}
	if strings.Contains(silentName, options.only) {
		return silent(contestants)
	}
	return nil
}

// throughput prints the received notes per second in each mode, and the server's CPU time per note.
func throughput(contestants []*contestant, options *options) error {
	for _, mode := range modes {
		if !strings.Contains(mode.name, options.only) {
			continue
		}
		if err := interleaveRounds(mode, contestants, options); err != nil {
			return err
		}
	}
	return nil
}

// interleaveRounds measures the servers in a mode, in alternating rounds.
func interleaveRounds(mode mode, contestants []*contestant, options *options) error {
	rates := make(map[*contestant][]float64)
	costs := make(map[*contestant][]float64)
	for range options.rounds {
		for _, contestant := range contestants {
			if !contestant.modes(mode) {
				continue
			}
			rate, cost, err := contestant.round(mode, options.length)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", mode.name, contestant.name, err)
			}
			rates[contestant] = append(rates[contestant], rate)
			costs[contestant] = append(costs[contestant], cost)
		}
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s; %d interleaved rounds of %v, with grpc-go's client; ratios against the first server: median (min, max)\n", mode.name, options.rounds, options.length)
	fmt.Fprintln(table, "server\tnotes/s\tratio\tserver CPU, us per note\tratio")
	reference := contestants[0]
	for _, contestant := range contestants {
		if len(rates[contestant]) > 0 {
			fmt.Fprintf(table, "%s\t%.0f\t%s\t%.2f\t%s\n", contestant.name,
				measure.Median(rates[contestant]), measure.Ratios(rates[contestant], rates[reference]),
				measure.Median(costs[contestant]), measure.Ratios(costs[contestant], costs[reference]))
		}
	}
	return table.Flush()
}

// start starts the server and waits until it listens.
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

// round measures a fresh server: received notes per second, and the server's CPU time per note in microseconds.
func (c *contestant) round(mode mode, length time.Duration) (rate, cost float64, err error) {
	server, address, err := c.start()
	if err != nil {
		return 0, 0, err
	}
	defer server.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), length+time.Minute)
	defer cancel()
	load, err := newClients(ctx, address, mode)
	if err != nil {
		return 0, 0, err
	}
	defer load.close()
	if err := load.warmUp(ctx); err != nil {
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
