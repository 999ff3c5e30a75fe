// Command storebench measures the stores alone, without chats and RPCs: throughput, CPU time, memory and latency, in
// alternating rounds, and what a Pebble folder with many notes takes to grow, to search, to open and to replay. It
// knows the contract of a store, and nothing of those that it measures.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/places"
	"example.com/routeguide/server/internal/memorylimit"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

const description = `Measure the stores of notes alone, in alternating rounds.

Each of --chats goroutines appends notes, 1000 ahead of the replies, and reads the reply to each as the server does: the log of its location, up to and including the note. The store "none" settles each note and keeps nothing: what it costs is the harness's own share of every other row, which is not subtracted. Right after that, one writer appends one note at a time.

With --grow, a Pebble folder gets that many notes first, in the same way, and stays open until the last round: its caches are those of a server that runs, and are part of the memory of every row. After the rounds, the CPU time of the first notes after a start is taken, when caches are empty, and the time to find the locations in rectangles, to open the folder after a clean close and after a kill -9, and to replay long logs, and memory at rest. --rounds 0 leaves out the rounds.

Locations are new ones, uniformly at random, unless --locations or --clustered say otherwise. Where notes share locations, give --history, too: a reply without it has the whole log, which makes the work of n notes at a location n*n. Two such workloads: --locations 10000 --history 10, and --clustered --history 10.

Run it with CGO_ENABLED=0, as the server is released: with cgo, Pebble keeps its caches outside of Go's heap. The memory limit is that of the server.`

type config struct {
	Chats     int           `default:"64" help:"Goroutines that append and read (${default})."`
	Rounds    int           `default:"5" help:"Rounds per store (${default})."`
	Round     time.Duration `default:"2s" help:"Duration of a round (${default}); the part with one writer takes a quarter of it."`
	Only      string        `default:"" enum:",memory,pebble,redis" placeholder:"STORE" help:"Measure only this store and memory: pebble, redis or memory."`
	History   int           `default:"0" placeholder:"N" help:"A reply has the newest N notes of its location. 0, the default, is all."`
	Locations int           `default:"0" placeholder:"N" help:"Number of locations. 0, the default: a new one for each note, or a million with --clustered."`
	Clustered bool          `help:"Leave most notes at few locations in 20 cities (Zipf's law), as people do."`
	Seed      uint64        `default:"1" placeholder:"N" help:"Seed of locations and texts (${default})."`
	Grow      int64         `default:"0" placeholder:"N" help:"Let the Pebble folder grow to N notes before the first round. A folder that --dir kept goes on growing from what it has. Each round goes on with it."`
	Dir       string        `placeholder:"DIR" help:"Keep the folder that grows in this one, and put other stores there, too. By default a temporary one."`
	Profile   string        `placeholder:"FILE" help:"Write a CPU profile to this file."`

	// UntilKilled is for the child process that is killed: the number of notes before it says so.
	UntilKilled int64 `hidden:"" default:"0"`
}

func main() {
	os.Exit(command.Main("storebench", run))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	var flags config
	if _, err := command.Parse(&flags, "storebench", description, nil, args, stdout, stderr); err != nil {
		return err
	}
	if flags.Chats < 1 || flags.Rounds < 0 || flags.Round <= 0 || flags.History < 0 || flags.Locations < 0 || flags.Grow < 0 {
		return command.Usagef("chats, rounds, round, history, locations, grow: want numbers that are not negative, and at least one chat")
	}
	if flags.Dir != "" {
		if err := os.MkdirAll(flags.Dir, 0o755); err != nil {
			return err
		}
	}
	scratch := ""
	if flags.UntilKilled == 0 { // A process that is killed removes nothing.
		if scratch, err = os.MkdirTemp(flags.Dir, "storebench"); err != nil {
			return err
		}
		defer os.RemoveAll(scratch)
	}
	if flags.Dir == "" {
		flags.Dir = scratch
	}
	if flags.Profile != "" {
		file, err := os.Create(flags.Profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"}) {
		fmt.Fprintln(stderr, "storebench: built with cgo, unlike released servers: Pebble's caches are outside of Go's heap")
	}
	following, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { memorylimit.Follow(following, memorylimit.Base) })
	defer background.Wait()
	defer cancel()
	bench := &bench{
		config:   flags,
		stdout:   stdout,
		progress: command.NewProgress(stderr),
		places:   places.Generator{Seed: flags.Seed, Count: flags.Locations, Clustered: flags.Clustered},
		folder:   filepath.Join(flags.Dir, "grown"),
		scratch:  scratch,
	}
	if flags.UntilKilled > 0 {
		return bench.writeUntilKilled(ctx)
	}
	return bench.run(ctx)
}

// bench is one run of the command.
type bench struct {
	config

	stdout   io.Writer
	progress *command.Progress
	places   places.Generator
	number   counter // of the last note
	folder   string  // the Pebble folder that grows
	scratch  string  // folder for what is removed at the end
}

func (b *bench) run(ctx context.Context) error {
	if err := b.compareGrown(ctx); err != nil {
		return err
	}
	if b.Grow > 0 {
		if err := b.measureCold(ctx); err != nil {
			return fmt.Errorf("after a start: %w", err)
		}
		if err := b.findRectangles(ctx); err != nil {
			return fmt.Errorf("rectangles: %w", err)
		}
		return b.restart(ctx)
	}
	return nil
}

// compareGrown lets the folder grow, and measures the stores.
func (b *bench) compareGrown(ctx context.Context) (err error) {
	var grown *pebblestore.Store
	if b.Grow > 0 {
		if grown, err = b.openFolder(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, grown.Close()) }()
		if err := b.grow(ctx, grown); err != nil {
			return fmt.Errorf("grow: %w", err)
		}
	}
	if b.Rounds == 0 {
		return nil
	}
	return b.compare(ctx, grown)
}

// unlimited is a number of notes that is never reached.
const unlimited = math.MaxInt64
