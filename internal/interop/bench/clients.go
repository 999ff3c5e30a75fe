package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/examples/route_guide/routeguide"
)

// mode is a way in which clients chat.
type mode struct {
	name               string
	chats, connections int
	ahead              int  // notes that are written before their replies are read
	history            int  // notes at each location before
	durable            bool // it is measured with a store on a disk too
	echo               bool // an echo can stand in for a server
}

var modes = []mode{
	{name: "one at a time, 32 chats on 2 connections", chats: 32, connections: 2, ahead: 1, echo: true},
	{name: "one at a time, 100 chats on 100 connections", chats: 100, connections: 100, ahead: 1, echo: true},
	{name: "written ahead, 32 chats on 2 connections", chats: 32, connections: 2, ahead: 500, durable: true, echo: true},
	{name: "replay of 300, 32 chats on 2 connections", chats: 32, connections: 2, ahead: 1, history: 300},
}

// placesOfChat is how many locations with a history a chat has for itself. A chat that goes from one to
// the other lengthens each only half as fast.
const placesOfChat = 2

// text makes a note 45 bytes long.
var text = strings.Repeat("n", 29)

// clients are grpc-go's, with open chats.
type clients struct {
	mode        mode
	connections []*grpc.ClientConn
	chats       []pb.RouteGuide_RouteChatClient
	next        atomic.Int32        // the last location that was used
	lengths     [][placesOfChat]int // of the histories, by chat
}

func newClients(ctx context.Context, address string, mode mode) (*clients, error) {
	clients := &clients{mode: mode}
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

func (l *clients) close() {
	for _, connection := range l.connections {
		_ = connection.Close()
	}
}

// newNote returns a note at a new location.
func (l *clients) newNote() *pb.RouteNote {
	place := l.next.Add(1)
	return &pb.RouteNote{Location: &pb.Point{Latitude: 100_000_000 + place%700_000_000, Longitude: 1_000_000_000}, Message: text}
}

// warm lets every chat say something, and makes its histories.
func (l *clients) warm(ctx context.Context) error {
	if l.mode.history == 0 {
		_, err := l.run(ctx, 200*time.Millisecond)
		return err
	}
	l.lengths = make([][placesOfChat]int, len(l.chats))
	errs := make([]error, len(l.chats))
	var warming sync.WaitGroup
	for i := range l.chats {
		warming.Go(func() {
			for range placesOfChat * l.mode.history {
				if _, err := l.replay(i); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	warming.Wait()
	return errors.Join(errs...)
}

// replay adds a note to a history of a chat, and reads all of it.
func (l *clients) replay(chat int) (received int64, err error) {
	lengths := &l.lengths[chat]
	place := 0
	for i := range lengths {
		if lengths[i] < lengths[place] {
			place = i
		}
	}
	err = l.chats[chat].Send(&pb.RouteNote{Location: &pb.Point{Latitude: int32(chat), Longitude: int32(place)}, Message: text})
	if err != nil {
		return 0, err
	}
	lengths[place]++
	for range lengths[place] {
		if _, err := l.chats[chat].Recv(); err != nil {
			return received, err
		}
		received++
	}
	return received, nil
}

// run chats for a while and returns how many notes came back.
func (l *clients) run(ctx context.Context, length time.Duration) (received int64, err error) {
	deadline := time.Now().Add(length)
	var total atomic.Int64
	errs := make([]error, len(l.chats))
	var chatting sync.WaitGroup
	for i := range l.chats {
		chatting.Go(func() {
			var count int64
			count, errs[i] = l.chat(ctx, i, deadline)
			total.Add(count)
		})
	}
	chatting.Wait()
	return total.Load(), errors.Join(errs...)
}

// chat holds one chat until the deadline, and reads until each note has its reply.
func (l *clients) chat(ctx context.Context, i int, deadline time.Time) (received int64, err error) {
	if l.mode.ahead > 1 {
		return l.writeAhead(ctx, l.chats[i], deadline)
	}
	for time.Now().Before(deadline) {
		if l.mode.history > 0 {
			count, err := l.replay(i)
			received += count
			if err != nil {
				return received, err
			}
			continue
		}
		if err := l.chats[i].Send(l.newNote()); err != nil {
			return received, err
		}
		if _, err := l.chats[i].Recv(); err != nil {
			return received, err
		}
		received++
	}
	return received, nil
}

// writeAhead writes as many notes ahead as the mode has.
func (l *clients) writeAhead(ctx context.Context, chat pb.RouteGuide_RouteChatClient, deadline time.Time) (received int64, err error) {
	waiting := make(chan struct{}, l.mode.ahead)
	sent := make(chan error, 1)
	go func() {
		defer close(waiting)
		for time.Now().Before(deadline) {
			select {
			case waiting <- struct{}{}:
			case <-ctx.Done():
				sent <- ctx.Err()
				return
			}
			if err := chat.Send(l.newNote()); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range waiting {
		if _, err := chat.Recv(); err != nil {
			return received, err
		}
		received++
	}
	return received, <-sent
}
