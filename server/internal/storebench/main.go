// Command storebench compares the throughput of the stores in one run, in short alternating rounds: pipelined
// chats at new random locations, through a whole server and without RPCs. With --fill it measures a Pebble folder
// with very many notes: the time to open it, the time of a replay, and its memory.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/places"
	"example.com/routeguide/internal/process"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/httpserver"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
	"example.com/routeguide/server/internal/notes/redisstore"
	"example.com/routeguide/server/internal/service"
)

const description = `Compare the throughput of the stores of notes in alternating rounds.`

type config struct {
	Chats       int           `default:"64" help:"Concurrent chats (${default})."`
	Connections int           `default:"4" help:"Connections shared by the chats (${default})."`
	Rounds      int           `default:"5" help:"Rounds per store (${default})."`
	Round       time.Duration `default:"2s" help:"Duration of a round (${default})."`
	Dir         string        `help:"Folder for the stores; by default a temporary one, removed at the end."`
	Only        string        `help:"Measure only this store and memory."`
	Profile     string        `help:"Write a CPU profile to this file."`
	Grow        int           `help:"Write this number of notes to the Pebble folder before the first round. Each round goes on with the folder of the one before."`
	Seed        uint64        `default:"1" help:"Seed of the locations, which are uniformly random (${default})."`
	Fill        int           `help:"Measure a Pebble folder with this number of notes instead."`
}

func main() {
	os.Exit(command.Main("storebench", run))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var flags config
	if _, err := command.Parse(&flags, "storebench", description, nil, args, stdout, stderr); err != nil {
		return err
	}
	generator.Seed = flags.Seed
	if flags.Dir == "" {
		dir, err := os.MkdirTemp("", "storebench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		flags.Dir = dir
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
	if flags.Fill > 0 {
		return fill(ctx, filepath.Join(flags.Dir, "filled"), flags.Fill, stdout)
	}
	return compare(ctx, flags, stdout)
}

// contestant is a store under test.
type contestant struct {
	name        string
	open        func(round int) (notes.Store, error)
	wholeServer []float64 // notes/s of whole servers, by round
	withoutRPC  []float64 // notes/s without RPCs, by round
	cost        []float64 // CPU time without RPCs in microseconds a note, chats included, by round
}

func compare(ctx context.Context, flags config, stdout io.Writer) error {
	contestants := []*contestant{
		{name: "memory", open: func(int) (notes.Store, error) { return notes.NewMemory(), nil }},
		{name: "pebble", open: func(round int) (notes.Store, error) {
			if flags.Grow > 0 {
				round = 0
			}
			return pebblestore.Open(pebblestore.Options{Dir: filepath.Join(flags.Dir, fmt.Sprint("round", round))})
		}},
	}
	redis, address, err := startRedis(flags.Dir)
	if err != nil {
		return err
	}
	defer redis.Kill()
	contestants = append(contestants, &contestant{name: "redis", open: func(int) (notes.Store, error) {
		return redisstore.Open(redisstore.Options{URL: "redis://" + address})
	}})
	if flags.Grow > 0 {
		store, err := contestants[1].open(0)
		if err == nil {
			err = errors.Join(write(ctx, store, flags.Grow, func(int) notes.Location { return newLocation() }), store.Close())
		}
		if err != nil {
			return err
		}
	}
	for round := range flags.Rounds {
		for _, contestant := range contestants {
			if flags.Only != "" && contestant.name != flags.Only && contestant.name != "memory" {
				continue
			}
			for _, measured := range []struct {
				rates *[]float64
				rate  func(context.Context, config, notes.Store) (float64, error)
			}{{&contestant.wholeServer, serverRate}, {&contestant.withoutRPC, chatRate}} {
				store, err := contestant.open(round)
				if err != nil {
					return err
				}
				runtime.GC()
				before, _ := measure.CPU(os.Getpid()) // The time is 0 without /proc.
				start := time.Now()
				rate, err := measured.rate(ctx, flags, store)
				after, _ := measure.CPU(os.Getpid())
				if measured.rates == &contestant.withoutRPC {
					contestant.cost = append(contestant.cost, float64((after-before).Microseconds())/(rate*time.Since(start).Seconds()))
				}
				if err := errors.Join(err, store.Close()); err != nil {
					return fmt.Errorf("%s: %w", contestant.name, err)
				}
				*measured.rates = append(*measured.rates, rate)
			}
		}
	}
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%d pipelined chats at new random locations (seed %d), pebble grown by %d notes; %d alternating rounds of %v\n",
		flags.Chats, flags.Seed, flags.Grow, flags.Rounds, flags.Round)
	fmt.Fprintln(table, "store\tnotes/s, whole server (median)\tagainst memory, median (min, max)\tnotes/s, no RPCs (median)\tagainst memory, median (min, max)\tCPU, no RPCs, us a note (median)")
	for _, contestant := range contestants {
		if len(contestant.wholeServer) == 0 {
			continue
		}
		fmt.Fprintf(table, "%s\t%.0f\t%s\t%.0f\t%s\t%.1f\n", contestant.name,
			measure.Median(contestant.wholeServer), measure.Ratios(contestant.wholeServer, contestants[0].wholeServer),
			measure.Median(contestant.withoutRPC), measure.Ratios(contestant.withoutRPC, contestants[0].withoutRPC), measure.Median(contestant.cost))
	}
	return table.Flush()
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
	_, err = redis.Await("Ready to accept connections")
	return redis, address, err
}

// window is the number of notes of a chat in flight.
const window = 1000

// generator has the locations of notes, and number how many it has given.
var (
	generator places.Generator
	number    atomic.Int64
)

func newLocation() notes.Location {
	latitude, longitude := generator.At(number.Add(1))
	return notes.Location{Latitude: latitude, Longitude: longitude}
}

func newNote() *routeguide.RouteNote {
	location := newLocation()
	return &routeguide.RouteNote{
		Location: &routeguide.Point{Latitude: location.Latitude, Longitude: location.Longitude},
		Message:  "a note that is as long as notes are",
	}
}

// serverRate measures chats over gRPC with a server in this process, in notes per second.
func serverRate(ctx context.Context, flags config, store notes.Store) (rate float64, err error) {
	service := service.New(guide.New(nil), service.Options{Chats: chat.Options{Store: store}})
	server, err := httpserver.Listen(ctx, "127.0.0.1:0", service, httpserver.Options{MaxStreams: 1000})
	if err != nil {
		return 0, err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	clients := make([]*routechat.Client, flags.Connections)
	for i := range clients {
		if clients[i], err = routechat.New("http://"+server.Addr().String(), connect.WithGRPC()); err != nil {
			return 0, err
		}
		defer clients[i].Close()
	}
	rate, err = chatFor(ctx, flags, func(ctx context.Context, chat int, answered *atomic.Int64) error {
		stream, err := clients[chat%len(clients)].RouteChat(ctx)
		if err != nil {
			return err
		}
		var sending sync.WaitGroup
		inFlight := make(chan struct{}, window)
		sending.Go(func() {
			defer func() { _ = stream.CloseRequest() }()
			for {
				select {
				case inFlight <- struct{}{}:
				case <-ctx.Done():
					return
				}
				if stream.Send(newNote()) != nil {
					return
				}
			}
		})
		for {
			if _, err = stream.Receive(); err != nil {
				break
			}
			answered.Add(1)
			<-inFlight
		}
		_ = stream.CloseResponse()
		sending.Wait()
		if ctx.Err() != nil || errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return rate, errors.Join(err, server.Shutdown(timeout), <-served)
}

// loopClient is the stream of a client in this process that sends and reads as fast as the chat allows.
type loopClient struct {
	ctx      context.Context //nolint:containedctx // It is the context of the chat.
	answered *atomic.Int64
	window   chan struct{} // one element per note in flight
}

func (c *loopClient) Receive() ([]byte, error) {
	select {
	case c.window <- struct{}{}:
		return proto.Marshal(newNote())
	case <-c.ctx.Done():
		return nil, io.EOF
	}
}

func (c *loopClient) Send([]byte) error {
	<-c.window
	c.answered.Add(1)
	return nil
}

func (c *loopClient) Flush() error { return nil }

func (c *loopClient) StopReceiving() {}

func (c *loopClient) Reset() {}

// chatRate measures chats without RPCs, in notes per second.
func chatRate(ctx context.Context, flags config, store notes.Store) (rate float64, err error) {
	server := chat.NewServer(chat.Options{Store: store})
	return chatFor(ctx, flags, func(ctx context.Context, _ int, answered *atomic.Int64) error {
		_, err := server.Serve(context.WithoutCancel(ctx), &loopClient{ctx: ctx, answered: answered, window: make(chan struct{}, window)}, nil)
		return err
	})
}

// chatFor runs chats for a round and returns the number of notes answered per second.
func chatFor(ctx context.Context, flags config, chat func(ctx context.Context, chat int, answered *atomic.Int64) error) (float64, error) {
	var answered atomic.Int64
	round, cancel := context.WithTimeout(ctx, flags.Round)
	defer cancel()
	errs := make([]error, flags.Chats)
	var running sync.WaitGroup
	start := time.Now()
	for i := range flags.Chats {
		running.Go(func() { errs[i] = chat(round, i, &answered) })
	}
	<-round.Done()
	rate := float64(answered.Load()) / time.Since(start).Seconds()
	running.Wait()
	return rate, errors.Join(errs...)
}

// fill measures a Pebble folder with many notes.
func fill(ctx context.Context, dir string, count int, stdout io.Writer) error {
	store, err := pebblestore.Open(pebblestore.Options{Dir: dir})
	if err != nil {
		return err
	}
	const log = 1000
	location := func(i int) notes.Location {
		if i%(count/20) < log {
			// Twenty logs of a thousand notes among random locations with one note.
			return notes.Location{Latitude: int32(i / (count / 20)), Longitude: 2}
		}
		latitude, longitude := generator.At(int64(i))
		return notes.Location{Latitude: latitude, Longitude: longitude}
	}
	start := time.Now()
	if err := write(ctx, store, count, location); err != nil {
		return err
	}
	elapsed := time.Since(start)
	fmt.Fprintf(stdout, "wrote and synced %d notes in %.1f s (%.0f notes/s), peak resident memory %d MiB\n",
		count, elapsed.Seconds(), float64(count)/elapsed.Seconds(), mebibytes("VmHWM"))
	if err := store.Close(); err != nil {
		return err
	}
	start = time.Now()
	if store, err = pebblestore.Open(pebblestore.Options{Dir: dir}); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "opened the folder of %d MiB in %.0f ms\n", store.Size()>>20, time.Since(start).Seconds()*1e3)
	var times []float64
	for i := range 20 {
		start := time.Now()
		read := 0
		for chunk, err := range store.Range(ctx, notes.Location{Latitude: int32(i), Longitude: 2}, notes.Everything) {
			if err != nil {
				return err
			}
			read += len(chunk)
		}
		times = append(times, time.Since(start).Seconds()*1e3)
		if read != log {
			return fmt.Errorf("a log has %d notes, not %d", read, log)
		}
	}
	fmt.Fprintf(stdout, "replayed 20 logs of %d notes, each for the first time, in %.2f ms (median; max %.2f)\n", log, measure.Median(times), slices.Max(times))
	for i := range 20_000 {
		for _, err := range store.Range(ctx, location(i*(count/20_000)), notes.Everything) {
			if err != nil {
				return err
			}
		}
	}
	debug.FreeOSMemory()
	fmt.Fprintf(stdout, "resident memory after 20000 further reads: %d MiB\n", mebibytes("VmRSS"))
	return store.Close()
}

// write appends notes at the locations of their numbers, and waits until they are kept.
func write(ctx context.Context, store notes.Store, count int, location func(number int) notes.Location) error {
	encoded := []byte(strings.Repeat("n", 45))
	var inFlight sync.WaitGroup
	owner := &counter{inFlight: &inFlight}
	for i := range count {
		inFlight.Add(1)
		store.Append(ctx, location(i), notes.Note{Time: notes.Now(), Encoded: encoded}, notes.Ticket{Owner: owner})
	}
	inFlight.Wait()
	if owner.failed.Load() {
		return errors.New("a note was not kept")
	}
	return nil
}

type counter struct {
	inFlight *sync.WaitGroup
	failed   atomic.Bool
}

func (c *counter) Settle(_ uint64, _ notes.Position, err error) {
	if err != nil {
		c.failed.Store(true)
	}
	c.inFlight.Done()
}

// mebibytes returns a memory value of this process from /proc in MiB, or -1 without /proc.
func mebibytes(name string) int64 {
	bytes, err := measure.Memory(os.Getpid(), name)
	if err != nil {
		return -1
	}
	return bytes >> 20
}
