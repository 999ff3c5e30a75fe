package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"example.com/routeguide/internal/places"
	pb "google.golang.org/grpc/examples/route_guide/routeguide"
)

var fanOut = []figure{{"deliveries/s", "%.0f"}, {"server CPU, us a delivery", "%.2f"}}

// followers are streams of grpc-go clients that all get each feature.
type followers struct {
	publisher pb.RouteGuideClient
	streams   []pb.RouteGuide_ListFeaturesClient
	places    places.Generator
	next      int64 // number of the next location
}

// newFollowers opens mode.chats streams, and waits until the server has all of them.
func newFollowers(ctx context.Context, connections connections, mode mode, seed uint64) (*followers, error) {
	followers := &followers{publisher: pb.NewRouteGuideClient(connections[0]), places: places.Generator{Seed: seed}}
	for i := range mode.chats {
		stream, err := pb.NewRouteGuideClient(connections[i%len(connections)]).ListFeatures(ctx, &pb.Rectangle{})
		if err != nil {
			return nil, err
		}
		if _, err := stream.Header(); err != nil {
			return nil, err
		}
		followers.streams = append(followers.streams, stream)
	}
	return followers, nil
}

// run publishes features for a time, each once all streams have got the one before, and returns the number of deliveries.
func (f *followers) run(ctx context.Context, length time.Duration) (received int64, err error) {
	errs := make([]error, len(f.streams))
	for deadline := time.Now().Add(length); time.Now().Before(deadline); received += int64(len(f.streams)) {
		latitude, longitude := f.places.At(f.next)
		f.next++
		if _, err := f.publisher.GetFeature(ctx, &pb.Point{Latitude: latitude, Longitude: longitude}); err != nil {
			return received, err
		}
		var running sync.WaitGroup
		for i, stream := range f.streams {
			running.Go(func() { _, errs[i] = stream.Recv() })
		}
		running.Wait()
		if err := errors.Join(errs...); err != nil {
			return received, err
		}
	}
	return received, nil
}

// fanOutRound measures a fresh server: messages delivered per second, and the server's CPU time for each in microseconds.
func fanOutRound(c *contestant, mode mode, options *options) (figures []float64, err error) {
	server, address, err := c.start()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.end(server)) }()
	ctx, cancel := context.WithTimeout(context.Background(), options.length+time.Minute)
	defer cancel()
	connections, err := dial(address, mode.connections, options)
	if err != nil {
		return nil, err
	}
	defer connections.close()
	followers, err := newFollowers(ctx, connections, mode, options.seed)
	if err != nil {
		return nil, err
	}
	if _, err := followers.run(ctx, warmUp); err != nil {
		return nil, err
	}
	return underLoad(server, func() (int64, error) { return followers.run(ctx, options.length) })
}
