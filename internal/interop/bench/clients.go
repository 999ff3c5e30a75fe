package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/routeguide/internal/places"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/examples/route_guide/routeguide"
)

// mode is a pattern of traffic.
type mode struct {
	name               string
	chats, connections int
	ahead              int  // notes in flight on each chat
	history            int  // notes at each location before the measurement
	durable            bool // measure the store on disk, too
	echo               bool // measure the echo servers, too
}

var modes = []mode{
	{name: "one at a time, 32 chats on 2 connections", chats: 32, connections: 2, ahead: 1, echo: true},
	{name: "one at a time, 100 chats on 100 connections", chats: 100, connections: 100, ahead: 1, echo: true},
	{name: "written ahead, 32 chats on 2 connections", chats: 32, connections: 2, ahead: 500, durable: true, echo: true},
	{name: "replay of 300, 32 chats on 2 connections", chats: 32, connections: 2, ahead: 1, history: 300},
}

// locationsPerChat is the number of locations with a history for each chat. A chat alternates between them, so that
// each history grows more slowly.
const locationsPerChat = 2

// text is the text of each note. The encoded note has 45 bytes.
var text = strings.Repeat("n", 29)

// clients are the open chats of grpc-go clients.
type clients struct {
	mode        mode
	connections []*grpc.ClientConn
	chats       []pb.RouteGuide_RouteChatClient
	places      places.Generator        // of new locations
	next        atomic.Int64            // number of the last new location
	lengths     [][locationsPerChat]int // of the histories in notes, by chat
}

func newClients(ctx context.Context, address string, mode mode) (*clients, error) {
	clients := &clients{mode: mode, places: places.Generator{Seed: 1}}
	for range mode.connections {
		connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		clients.connections = append(clients.connections, connection)
	}
	for i := range mode.chats {
		chat, err := pb.NewRouteGuideClient(clients.connections[i%mode.connections]).RouteChat(ctx)
		if err != nil {
			return nil, err
		}
		clients.chats = append(clients.chats, chat)
	}
	return clients, nil
}

func (c *clients) close() {
	for _, connection := range c.connections {
		_ = connection.Close()
	}
}

// newNote returns a note at a new location, uniformly at random.
func (c *clients) newNote() *pb.RouteNote {
	latitude, longitude := c.places.At(c.next.Add(1))
	return &pb.RouteNote{Location: &pb.Point{Latitude: latitude, Longitude: longitude}, Message: text}
}

// warmUp sends notes on every chat, and writes the histories.
func (c *clients) warmUp(ctx context.Context) error {
	if c.mode.history == 0 {
		_, err := c.run(ctx, 200*time.Millisecond)
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
	err = c.chats[chat].Send(&pb.RouteNote{Location: &pb.Point{Latitude: int32(chat), Longitude: int32(number)}, Message: text})
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
