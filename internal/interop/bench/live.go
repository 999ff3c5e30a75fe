package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/places"
	"example.com/routeguide/internal/process"
	"google.golang.org/grpc"
	pb "google.golang.org/grpc/examples/route_guide/routeguide"
)

// Rounds of live notes take longer than others: notes are few, and each is delivered to many.
const liveTimeout = 3 * time.Minute

// liveWarmUp is the number of notes before a measurement.
const liveWarmUp = 5

var (
	oneLocation     = []figure{{"server CPU, us a delivery", "%.2f"}, {"client CPU, us a delivery", "%.2f"}, {"kB a follower", "%.1f"}, {"p50, ms", "%.2f"}, {"p99, ms", "%.2f"}}
	silentFollowers = []figure{{"memory of a follower, kB", "%.1f"}}
	rectangles      = []figure{{"server CPU, us a note", "%.2f"}, {"without followers", "%.2f"}, {"client CPU, us a note", "%.2f"}, {"deliveries a note", "%.2f"}, {"p50, ms", "%.2f"}, {"p99, ms", "%.2f"}}
	slowConsumers   = []figure{{"p99 of the others, ms", "%.2f"}, {"without slow consumers", "%.2f"}, {"ratio", "%.2f"}, {"largest memory, MiB", "%.0f"}, {"without slow consumers", "%.0f"}, {"server CPU, us a delivery to the others", "%.1f"}, {"without slow consumers", "%.1f"}}
	twoServers      = []figure{{"p50, ms", "%.2f"}, {"p99, ms", "%.2f"}}
)

// liveRun is a server with followers.
type liveRun struct {
	mode        mode
	profileFile string // for a CPU profile of the server; empty is none
	service     *liveService
	server      *process.Process
	address     string
	places      places.Generator
	next        int64 // number of the next location and text
	location    *pb.Point
	following   connections
	leaving     connections
	leaver      *leaver
	followers   []*noteFollower
}

// startLive starts a server, without followers.
func (c *contestant) startLive(mode mode, options *options) (run *liveRun, err error) {
	server, address, err := c.start()
	if err != nil {
		return nil, err
	}
	run = &liveRun{mode: mode, profileFile: c.profileFile, service: c.live, server: server, address: address, places: places.Generator{Seed: options.seed}}
	run.location = run.newNote().GetLocation()
	leaveAddress, err := c.live.leaveAddress(server, address)
	if err != nil {
		return nil, errors.Join(err, run.end())
	}
	if run.following, err = dial(address, mode.connections, options); err != nil {
		return nil, errors.Join(err, run.end())
	}
	if run.leaving, err = dial(leaveAddress, 1, options); err != nil {
		return nil, errors.Join(err, run.end())
	}
	run.leaver = &leaver{c.live, run.leaving[0]}
	return run, nil
}

func (r *liveRun) end() error {
	return errors.Join(r.following.close(), r.leaving.close(), r.server.Kill())
}

// newNote returns a note at a new location, uniformly at random.
func (r *liveRun) newNote() *pb.RouteNote {
	latitude, longitude := r.places.At(r.next)
	text := r.places.Text(r.next, max(textBytes, r.mode.text))
	r.next++
	return &pb.RouteNote{Location: &pb.Point{Latitude: latitude, Longitude: longitude}, Message: text}
}

// notesAtLocation returns notes at the location that is followed.
func (r *liveRun) notesAtLocation(number int) []*pb.RouteNote {
	notes := make([]*pb.RouteNote, number)
	for i := range notes {
		notes[i] = r.newNote()
		notes[i].Location = r.location
	}
	return notes
}

// followLocation opens streams that follow the location.
func (r *liveRun) followLocation(ctx context.Context, connections connections, number int) ([]*noteFollower, error) {
	filter, err := atLocation(r.location)
	if err != nil {
		return nil, err
	}
	return followAll(ctx, connections, r.service, slices.Repeat([][]byte{filter}, number))
}

// deliver leaves notes at the location, until all followers have received all of them.
func (r *liveRun) deliver(ctx context.Context, number int) error {
	notes := r.notesAtLocation(number)
	return receiveAll(r.followers, func(int) int { return number }, func() error { return r.leaver.leave(ctx, notes, r.mode.rate) })
}

// usage is the CPU time of a server, and of its clients.
type usage struct{ server, clients time.Duration }

func (r *liveRun) usage() (now usage, err error) {
	if now.server, err = measure.CPU(r.server.PID()); err != nil {
		return now, err
	}
	now.clients, err = measure.CPU(os.Getpid())
	return now, err
}

// during returns the CPU time that passes while notes are left and delivered, in microseconds.
func (r *liveRun) during(ctx context.Context, function func() error) (server, clients float64, err error) {
	if r.profileFile != "" {
		return 0, 0, r.profile(ctx, function)
	}
	before, err := r.usage()
	if err != nil {
		return 0, 0, err
	}
	if err := function(); err != nil {
		return 0, 0, err
	}
	after, err := r.usage()
	return float64((after.server - before.server).Microseconds()), float64((after.clients - before.clients).Microseconds()), err
}

// profile writes a CPU profile of the server while notes are left and delivered.
func (r *liveRun) profile(ctx context.Context, function func() error) error {
	admin, err := r.server.Await(`admin=(\S+)`)
	if err != nil {
		return err
	}
	seconds := math.Ceil(float64(r.mode.notes) / r.mode.rate)
	downloaded := make(chan error, 1)
	go func() {
		downloaded <- download(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%.0f", admin[1], seconds), r.profileFile)
	}()
	return errors.Join(function(), <-downloaded)
}

// latency returns the median and the 99th percentile of all latencies so far in milliseconds, and forgets them.
func (r *liveRun) latency() (p50, p99 float64) {
	var all []time.Duration
	for _, follower := range r.followers {
		all = append(all, follower.latencies...)
		follower.latencies = nil
	}
	slices.Sort(all)
	percentile := func(p float64) float64 {
		return all[int(math.Ceil(p*float64(len(all))))-1].Seconds() * 1000
	}
	return percentile(0.5), percentile(0.99)
}

// oneLocationRound measures a fresh server with followers of one location.
func oneLocationRound(c *contestant, mode mode, options *options) (figures []float64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), liveTimeout)
	defer cancel()
	run, err := c.startLive(mode, options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, run.end()) }()
	before, err := settledMemory(run.server)
	if err != nil {
		return nil, err
	}
	if run.followers, err = run.followLocation(ctx, run.following, mode.followers); err != nil {
		return nil, err
	}
	if err := run.deliver(ctx, liveWarmUp); err != nil {
		return nil, err
	}
	run.latency()
	server, clients, err := run.during(ctx, func() error { return run.deliver(ctx, mode.notes) })
	if err != nil {
		return nil, err
	}
	after, err := measure.Memory(run.server.PID(), "VmRSS")
	if err != nil {
		return nil, err
	}
	deliveries := float64(mode.notes * mode.followers)
	p50, p99 := run.latency()
	return []float64{server / deliveries, clients / deliveries, float64(after-before) / float64(mode.followers) / 1000, p50, p99}, nil
}

// silentFollowersRound measures a fresh server: the memory for each follower in kB, without any notes.
func silentFollowersRound(c *contestant, mode mode, options *options) (figures []float64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), liveTimeout)
	defer cancel()
	run, err := c.startLive(mode, options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, run.end()) }()
	before, err := settledMemory(run.server)
	if err != nil {
		return nil, err
	}
	if run.followers, err = run.followLocation(ctx, run.following, mode.followers); err != nil {
		return nil, err
	}
	after, err := settledMemory(run.server)
	if err != nil {
		return nil, err
	}
	return []float64{float64(after-before) / float64(mode.followers) / 1000}, nil
}

// slowConsumersRound measures two fresh servers while large notes are left at a location: with followers that read, and with
// as many and those that take nothing.
func slowConsumersRound(c *contestant, mode mode, options *options) (figures []float64, err error) {
	const others = 100
	alone, err := c.slowConsumers(mode, others, 0, options)
	if err != nil {
		return nil, err
	}
	beside, err := c.slowConsumers(mode, others, mode.followers, options)
	if err != nil {
		return nil, fmt.Errorf("with slow consumers: %w", err)
	}
	return []float64{beside.p99, alone.p99, beside.p99 / alone.p99, beside.memory, alone.memory, beside.cpu, alone.cpu}, nil
}

// besideSlow is what followers get that read.
type besideSlow struct {
	p99    float64 // of latencies, in ms
	memory float64 // largest resident memory of the server, in MiB
	cpu    float64 // of the server, in us a delivery
}

// slowConsumers measures a fresh server with followers that read, and some that take nothing.
func (c *contestant) slowConsumers(mode mode, reading, slow int, options *options) (figures besideSlow, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), liveTimeout)
	defer cancel()
	run, err := c.startLive(mode, options)
	if err != nil {
		return figures, err
	}
	defer func() { err = errors.Join(err, run.end()) }()
	if run.followers, err = run.followLocation(ctx, run.following, reading); err != nil {
		return figures, err
	}
	// By default, grpc-go's client enlarges the windows of all streams, also of those that are not read.
	slowConnections, err := dial(run.address, mode.connections, options, grpc.WithStaticStreamWindowSize(64<<10))
	if err != nil {
		return figures, err
	}
	defer slowConnections.close()
	if _, err := run.followLocation(ctx, slowConnections, slow); err != nil {
		return figures, err
	}
	// Slow consumers get what their flow-control windows admit: that is over before the measurement.
	if err := run.deliver(ctx, liveWarmUp); err != nil {
		return figures, err
	}
	if _, err := settledMemory(run.server); err != nil {
		return figures, err
	}
	run.latency()
	server, _, err := run.during(ctx, func() error { return run.deliver(ctx, mode.notes) })
	if err != nil {
		return figures, err
	}
	peak, err := measure.Memory(run.server.PID(), "VmHWM")
	_, p99 := run.latency()
	return besideSlow{p99, float64(peak) / (1 << 20), server / float64(mode.notes*reading)}, err
}
