// Command bench compares our server with grpc-go's RouteGuide server, under the load of grpc-go's client, bare handlers on
// our HTTP server with those on net/http and grpc-go, and live notes with Centrifugo. The servers are processes. Their rounds
// alternate, so that noise of the machine affects all of them.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/internal/process"
)

func main() {
	var options options
	flag.IntVar(&options.rounds, "rounds", 15, "number of rounds of each server and mode")
	flag.DurationVar(&options.length, "round", 500*time.Millisecond, "length of a round")
	flag.StringVar(&options.only, "only", "", "measure only modes whose names contain this")
	flag.BoolVar(&options.tls, "tls", false, "serve TLS, with a certificate made for the run")
	flag.StringVar(&options.serverArgs, "server-args", "", "further arguments of our server, separated by spaces")
	flag.StringVar(&options.against, "against", "", "compare with another build of our server, too: path and further arguments, separated by spaces")
	flag.Uint64Var(&options.seed, "seed", 1, "seed of the locations and texts, which are random; each round has further ones")
	flag.IntVar(&options.grow, "grow", 1_000_000, "number of notes that our store on the disk gets before the first round")
	flag.BoolVar(&options.variants, "variants", false, "compare our server with itself, built with PGO, and with other GOGC settings")
	flag.StringVar(&options.profiles, "profiles", "", "write a CPU profile of our server in each mode to this folder, instead of measuring")
	flag.Parse()
	if err := run(&options); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds     int
	length     time.Duration
	only       string
	tls        bool
	serverArgs string
	against    string
	seed       uint64
	grow       int
	variants   bool
	profiles   string

	// certificate and key are paths of the PEM files for TLS, which are empty in cleartext.
	certificate, key string
	client           string  // path of our client
	rate             float64 // notes per second in an open loop
}

// tlsArgs returns the arguments with which all servers but grpc-go's RouteGuide server serve TLS.
func (o *options) tlsArgs() []string {
	if !o.tls {
		return nil
	}
	return []string{"--tls-cert", o.certificate, "--tls-key", o.key}
}

// mode is a pattern of traffic, and how it is measured.
type mode struct {
	name    string
	figures []figure // what a round measures
	// round measures a server once.
	round              func(*contestant, mode, *options) ([]float64, error)
	rounds             int // 0 is options.rounds
	chats, connections int
	ahead              int  // notes in flight on each chat of a throughput mode
	history            int  // notes at each location before the measurement
	durable            bool // measure the store on disk, too
	echo               bool // measure the echo servers, too
	openLoop           bool // send notes at options.rate
	broadcast          bool // measure the broadcast servers, and no others

	// Of the modes of live notes, which are measured in cleartext only:
	live      bool
	peer      bool    // measure Centrifugo, too
	followers int     // on connections
	rate      float64 // of notes, in notes per second
	notes     int     // in a round
	text      int     // bytes of a note's text; 0 is textBytes
}

// figure is something that is measured, and the format of its values.
type figure struct{ name, format string }

var modes = []mode{
	{name: "one at a time, 32 chats on 2 connections", figures: throughput, round: throughputRound, chats: 32, connections: 2, ahead: 1, echo: true},
	{name: "one at a time, 100 chats on 100 connections", figures: throughput, round: throughputRound, chats: 100, connections: 100, ahead: 1, echo: true},
	{name: "written ahead, 32 chats on 2 connections", figures: throughput, round: throughputRound, chats: 32, connections: 2, ahead: 500, durable: true, echo: true},
	{name: "replay of 300, 32 chats on 2 connections", figures: throughput, round: throughputRound, chats: 32, connections: 2, ahead: 1, history: 300},
	{name: "latency at half of grpc-go's rate, 32 chats on 2 connections", figures: latency, round: latencyRound, chats: 32, connections: 2, durable: true, openLoop: true},
	{name: "fan-out, one note to each of 1000 streams on 20 connections", figures: fanOut, round: fanOutRound, chats: 1000, connections: 20, broadcast: true},
	{name: "silent chats, 10000 on 100 connections", figures: memory, round: silentRound, rounds: 3, chats: 10_000, connections: 100, echo: true},
	{name: "silent chats, 10000 on 10000 connections", figures: memory, round: silentRound, rounds: 3, chats: 10_000, connections: 10_000},
	{name: "live notes, 50/s to 1000 followers on 20 connections", figures: oneLocation, round: oneLocationRound, rounds: 5, live: true, peer: true, followers: 1000, connections: 20, rate: 50, notes: 300},
	{name: "live notes, 5/s to 10000 followers on 20 connections", figures: oneLocation, round: oneLocationRound, rounds: 5, live: true, peer: true, followers: 10_000, connections: 20, rate: 5, notes: 40},
	{name: "live notes, 10000 silent followers on 200 connections", figures: silentFollowers, round: silentFollowersRound, rounds: 3, live: true, peer: true, followers: 10_000, connections: 200},
	{name: "live notes, 10000/s to 10000 rectangles on 20 connections", figures: rectangles, round: rectanglesRound, rounds: 5, live: true, followers: 10_000, connections: 20, rate: 10_000, notes: 100_000},
	{name: "live notes, 64 MiB to 100 followers beside 1000 slow consumers", figures: slowConsumers, round: slowConsumersRound, rounds: 3, live: true, followers: 1000, connections: 20, rate: 128, notes: 4096, text: 16 << 10},
	{name: "live notes, from one server to another by one Redis", figures: twoServers, round: twoServersRound, rounds: 5, live: true, followers: 1, connections: 1, rate: 50, notes: 200},
}

// selected returns the modes that are measured.
func (o *options) selected() (selected []mode) {
	for _, mode := range modes {
		if strings.Contains(mode.name, o.only) && (!mode.live || !o.tls) {
			selected = append(selected, mode)
		}
	}
	return selected
}

func run(options *options) (err error) {
	// As the server is released: with cgo, Pebble keeps its caches outside of Go's heap.
	if err := os.Setenv("CGO_ENABLED", "0"); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if options.tls {
		if options.certificate, options.key, err = certtest.WriteSelfSigned(folder); err != nil {
			return err
		}
	}
	contestants := allContestants(folder, options)
	if options.variants {
		if contestants, err = variants(folder, options); err != nil {
			return err
		}
	}
	contestants = slices.DeleteFunc(contestants, func(c *contestant) bool { return !slices.ContainsFunc(options.selected(), c.modes) })
	if err := build(contestants, folder); err != nil {
		return err
	}
	if options.profiles != "" {
		return profile(contestants, options.profiles, 10*options.length, options)
	}
	if options.client, err = process.Build("../..", "example.com/routeguide/client", folder); err != nil {
		return err
	}
	if err := grow(contestants, options); err != nil {
		return err
	}
	if len(options.selected()) == 0 {
		return fmt.Errorf("no mode has %q in its name", options.only)
	}
	for _, mode := range options.selected() {
		if err := compare(mode, contestants, options); err != nil {
			return err
		}
	}
	return nil
}
