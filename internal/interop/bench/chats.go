package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/places"
	"example.com/routeguide/internal/process"
	pb "google.golang.org/grpc/examples/route_guide/routeguide"
)

var throughput = []figure{{"notes/s", "%.0f"}, {"server CPU, us a note", "%.2f"}}

// locationsPerChat is the number of locations with a history for each chat. A chat alternates between them, so that
// each history grows more slowly.
const locationsPerChat = 2

// textBytes is the length of a note's text. The encoded note has about 45 bytes.
const textBytes = 29

// warmUp is the time of the load before a measurement.
const warmUp = 200 * time.Millisecond

// clients are the open chats of grpc-go clients.
type clients struct {
	mode        mode
	connections connections
	chats       []pb.RouteGuide_RouteChatClient
	places      places.Generator        // of locations and texts
	next        atomic.Int64            // number of the last new location
	lengths     [][locationsPerChat]int // of the histories in notes, by chat
}

func newClients(ctx context.Context, address string, mode mode, options *options) (*clients, error) {
	connections, err := dial(address, mode.connections, options)
	if err != nil {
		return nil, err
	}
	clients := &clients{mode: mode, connections: connections, places: places.Generator{Seed: options.seed}}
	for i := range mode.chats {
		chat, err := pb.NewRouteGuideClient(connections[i%mode.connections]).RouteChat(ctx)
		if err != nil {
			return nil, errors.Join(err, connections.close())
		}
		clients.chats = append(clients.chats, chat)
	}
	return clients, nil
}

// newNote returns a note at a new location, uniformly at random.
func (c *clients) newNote() *pb.RouteNote {
	number := c.next.Add(1)
	latitude, longitude := c.places.At(number)
	return &pb.RouteNote{Location: &pb.Point{Latitude: latitude, Longitude: longitude}, Message: c.places.Text(number, textBytes)}
}

// warmUp sends notes on every chat, and writes the histories.
func (c *clients) warmUp(ctx context.Context) error {
	if c.mode.history == 0 {
		_, err := c.run(ctx, warmUp)
		return err
	}
	c.lengths = make([][locationsPerChat]int, len(c.chats))
	errs := make([]error, len(c.chats))
	var running sync.WaitGroup
	for i := range c.chats {
		running.Go(func() {
			for range locationsPerChat * c.mode.history {
				if _, err := c.replay(i); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// replay appends a note to the shortest history of a chat, and reads the reply, which has all of it.
func (c *clients) replay(chat int) (received int64, err error) {
	lengths := &c.lengths[chat]
	number := 0
	for i := range lengths {
		if lengths[i] < lengths[number] {
			number = i
		}
	}
	latitude, longitude := c.places.At(int64(chat*locationsPerChat + number))
	location := &pb.Point{Latitude: latitude, Longitude: longitude}
	err = c.chats[chat].Send(&pb.RouteNote{Location: location, Message: c.places.Text(int64(lengths[number]), textBytes)})
	if err != nil {
		return 0, err
	}
	lengths[number]++
	for range lengths[number] {
		if _, err := c.chats[chat].Recv(); err != nil {
			return received, err
		}
		received++
	}
	return received, nil
}

// run uses all chats for a time, and returns the number of received notes.
func (c *clients) run(ctx context.Context, length time.Duration) (received int64, err error) {
	deadline := time.Now().Add(length)
	var total atomic.Int64
	errs := make([]error, len(c.chats))
	var running sync.WaitGroup
	for i := range c.chats {
		running.Go(func() {
			var count int64
			count, errs[i] = c.chat(ctx, i, deadline)
			total.Add(count)
		})
	}
	running.Wait()
	return total.Load(), errors.Join(errs...)
}

// chat uses one chat until the deadline, and waits for the last replies.
func (c *clients) chat(ctx context.Context, i int, deadline time.Time) (received int64, err error) {
	if c.mode.ahead > 1 {
		return c.writeAhead(ctx, c.chats[i], deadline)
	}
	for time.Now().Before(deadline) {
		if c.mode.history > 0 {
			count, err := c.replay(i)
			received += count
			if err != nil {
				return received, err
			}
			continue
		}
		if err := c.chats[i].Send(c.newNote()); err != nil {
			return received, err
		}
		if _, err := c.chats[i].Recv(); err != nil {
			return received, err
		}
		received++
	}
	return received, nil
}

// writeAhead sends notes with mode.ahead of them in flight.
func (c *clients) writeAhead(ctx context.Context, chat pb.RouteGuide_RouteChatClient, deadline time.Time) (received int64, err error) {
	inFlight := make(chan struct{}, c.mode.ahead)
	sent := make(chan error, 1)
	go func() {
		defer close(inFlight)
		for time.Now().Before(deadline) {
			select {
			case inFlight <- struct{}{}:
			case <-ctx.Done():
				sent <- ctx.Err()
				return
			}
			if err := chat.Send(c.newNote()); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range inFlight {
		if _, err := chat.Recv(); err != nil {
			return received, err
		}
		received++
	}
	return received, <-sent
}

// throughputRound measures a fresh server: received notes per second, and the server's CPU time per note in microseconds.
func throughputRound(c *contestant, mode mode, options *options) (figures []float64, err error) {
	server, address, err := c.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.end(server)) }()
	ctx, cancel := context.WithTimeout(context.Background(), options.length+time.Minute)
	defer cancel()
	load, err := newClients(ctx, address, mode, options)
	if err != nil {
		return nil, err
	}
	defer load.connections.close()
	if err := load.warmUp(ctx); err != nil {
		return nil, err
	}
	return underLoad(server, func() (int64, error) { return load.run(ctx, options.length) })
}

// underLoad measures a server while load runs, which returns the number of received messages: messages per second, and the
// server's CPU time for each in microseconds.
func underLoad(server *process.Process, load func() (received int64, err error)) ([]float64, error) {
	before, err := measure.CPU(server.PID())
	if err != nil {
		return nil, err
	}
	start := time.Now()
	received, err := load()
	elapsed := time.Since(start)
	if err != nil {
		return nil, err
	}
	after, err := measure.CPU(server.PID())
	if err != nil {
		return nil, err
	}
	return []float64{float64(received) / elapsed.Seconds(), float64((after - before).Microseconds()) / float64(received)}, nil
}
