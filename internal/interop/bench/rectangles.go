package main

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sort"
	"time"

	pb "google.golang.org/grpc/examples/route_guide/routeguide"
)

// heardBy is the number of followers that hear a note, on average.
const heardBy = 1

// writtenAheadChats is the number of chats that leave notes, and writtenAheadTick is how often each sends the notes that are due.
const (
	writtenAheadChats = 4
	writtenAheadTick  = 10 * time.Millisecond
)

// rectanglesRound measures a fresh server, on which chats leave notes at random locations, written ahead: first without followers, and then
// with followers of random rectangles.
func rectanglesRound(c *contestant, mode mode, options *options) (figures []float64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), liveTimeout)
	defer cancel()
	run, err := c.startLive(mode, options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, run.end()) }()
	chats, err := openChats(ctx, run.leaving)
	if err != nil {
		return nil, err
	}
	warmUp, before, notes := run.newNotes(mode.notes/10), run.newNotes(mode.notes), run.newNotes(mode.notes)
	if err := chats.leave(ctx, warmUp, mode.rate); err != nil {
		return nil, err
	}
	without, _, err := run.during(ctx, func() error { return chats.leave(ctx, before, mode.rate) })
	if err != nil {
		return nil, err
	}
	rectangles := run.rectangles(mode.followers)
	filters := make([][]byte, len(rectangles))
	for i, rectangle := range rectangles {
		if filters[i], err = inRectangle(rectangle); err != nil {
			return nil, err
		}
	}
	if run.followers, err = followAll(ctx, run.following, run.service, filters); err != nil {
		return nil, err
	}
	want := within(rectangles, notes)
	deliveries := 0
	for _, number := range want {
		deliveries += number
	}
	server, clients, err := run.during(ctx, func() error {
		return receiveAll(run.followers, func(i int) int { return want[i] }, func() error { return chats.leave(ctx, notes, mode.rate) })
	})
	if err != nil {
		return nil, err
	}
	number := float64(len(notes))
	p50, p99 := run.latency()
	return []float64{server / number, without / number, clients / number, float64(deliveries) / number, p50, p99}, nil
}

// newNotes returns notes at new locations.
func (r *liveRun) newNotes(number int) []*pb.RouteNote {
	notes := make([]*pb.RouteNote, number)
	for i := range notes {
		notes[i] = r.newNote()
	}
	return notes
}

// rectangles returns random rectangles of one size, such that heardBy of them have a random location, on average.
func (r *liveRun) rectangles(number int) []*pb.Rectangle {
	const width, height = 360_0000000, 180_0000000 // of the Earth, in E7 degrees
	side := math.Sqrt(heardBy / float64(number))   // as a part of the Earth's
	rectangles := make([]*pb.Rectangle, number)
	for i := range rectangles {
		random := r.newNote().GetLocation()
		// The corner is as random as the location, as far from the edges as the rectangle is long.
		latitude := int32((float64(random.GetLatitude())+height/2)*(1-side)) - height/2
		longitude := int32((float64(random.GetLongitude())+width/2)*(1-side) - width/2)
		rectangles[i] = &pb.Rectangle{
			Lo: &pb.Point{Latitude: latitude, Longitude: longitude},
			Hi: &pb.Point{Latitude: latitude + int32(height*side), Longitude: longitude + int32(width*side)},
		}
	}
	return rectangles
}

// within returns how many of the notes each rectangle has.
func within(rectangles []*pb.Rectangle, notes []*pb.RouteNote) []int {
	byLatitude := slices.SortedFunc(slices.Values(notes), func(a, b *pb.RouteNote) int {
		return int(a.GetLocation().GetLatitude()) - int(b.GetLocation().GetLatitude())
	})
	counts := make([]int, len(rectangles))
	for i, rectangle := range rectangles {
		first := sort.Search(len(byLatitude), func(i int) bool {
			return byLatitude[i].GetLocation().GetLatitude() >= rectangle.GetLo().GetLatitude()
		})
		for _, note := range byLatitude[first:] {
			location := note.GetLocation()
			if location.GetLatitude() > rectangle.GetHi().GetLatitude() {
				break
			}
			if location.GetLongitude() >= rectangle.GetLo().GetLongitude() && location.GetLongitude() <= rectangle.GetHi().GetLongitude() {
				counts[i]++
			}
		}
	}
	return counts
}

// chats are chats of grpc-go's client that write ahead.
type chats []pb.RouteGuide_RouteChatClient

func openChats(ctx context.Context, connections connections) (chats, error) {
	var chats chats
	for i := range writtenAheadChats {
		chat, err := pb.NewRouteGuideClient(connections[i%len(connections)]).RouteChat(ctx)
		if err != nil {
			return nil, err
		}
		chats = append(chats, chat)
	}
	return chats, nil
}

// leave leaves notes at a rate, on all chats in turn, and returns when all were answered. Each must be the first at its
// location.
func (c chats) leave(ctx context.Context, notes []*pb.RouteNote, rate float64) error {
	answered := make(chan error, len(c))
	for first, chat := range c {
		go func() {
			for i := first; i < len(notes); i += len(c) {
				if _, err := chat.Recv(); err != nil {
					answered <- err
					return
				}
			}
			answered <- nil
		}()
	}
	err := c.send(ctx, notes, rate)
	for range c {
		err = errors.Join(err, <-answered)
	}
	return err
}

func (c chats) send(ctx context.Context, notes []*pb.RouteNote, rate float64) error {
	start := time.Now()
	for i, note := range notes {
		due := start.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		// Notes are sent in bursts.
		if burst := due.Truncate(writtenAheadTick).Add(writtenAheadTick); time.Now().Before(burst) {
			if err := sleepUntil(ctx, burst); err != nil {
				return err
			}
		}
		note.Message = stamp(time.Now(), note.GetMessage())
		if err := c[i%len(c)].Send(note); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}
