package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
)

// callTimeout is how long each call of the tutorial may take.
const callTimeout = 10 * time.Second

// play makes the four calls of the tutorial and prints what comes.
func play(ctx context.Context, client *routechat.Client, out io.Writer) error {
	for _, call := range []struct {
		name string
		make func(context.Context, *routechat.Client, io.Writer) error
	}{
		{"GetFeature", getFeatures},
		{"ListFeatures", listFeatures},
		{"RecordRoute", recordRoute},
		{"RouteChat", routeChat},
	} {
		if err := within(ctx, callTimeout, func(ctx context.Context) error { return call.make(ctx, client, out) }); err != nil {
			return fmt.Errorf("%s: %w", call.name, err)
		}
	}
	return nil
}

func within(ctx context.Context, timeout time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return call(ctx)
}

// getFeatures asks for a point where there is something, and for one where there is not.
func getFeatures(ctx context.Context, client *routechat.Client, out io.Writer) error {
	for _, point := range []*routeguide.Point{
		{Latitude: 409146138, Longitude: -746188906},
		{},
	} {
		feature, err := client.GetFeature(ctx, point)
		if err != nil {
			return err
		}
		if feature.GetName() == "" {
			fmt.Fprintf(out, "Found nothing at %s\n", at(feature.GetLocation()))
			continue
		}
		fmt.Fprintf(out, "Found %s at %s\n", line(feature.GetName()), at(feature.GetLocation()))
	}
	return nil
}

// listFeatures lists what is between 40 and 42 degrees north, 75 and 73 degrees west.
func listFeatures(ctx context.Context, client *routechat.Client, out io.Writer) error {
	stream, err := client.ListFeatures(ctx, &routeguide.Rectangle{
		Lo: &routeguide.Point{Latitude: 400000000, Longitude: -750000000},
		Hi: &routeguide.Point{Latitude: 420000000, Longitude: -730000000},
	})
	if err != nil {
		return err
	}
	for stream.Receive() {
		feature := stream.Msg()
		fmt.Fprintf(out, "Listed %s at %s\n", line(feature.GetName()), at(feature.GetLocation()))
	}
	return errors.Join(stream.Err(), stream.Close())
}

// recordRoute goes from one place of New Jersey to the next.
func recordRoute(ctx context.Context, client *routechat.Client, out io.Writer) error {
	stream, err := client.RecordRoute(ctx)
	if err != nil {
		return err
	}
	for _, point := range []*routeguide.Point{
		{Latitude: 409146138, Longitude: -746188906},
		{Latitude: 408838000, Longitude: -745608000},
		{Latitude: 407357000, Longitude: -741724000},
		{Latitude: 407142700, Longitude: -740059700},
	} {
		if err := stream.Send(point); err != nil && !errors.Is(err, io.EOF) {
			return err // After io.EOF, the reason comes with the response.
		}
	}
	summary, err := stream.CloseAndReceive()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Route of %d points, %d features, %d metres, %d seconds\n",
		summary.GetPointCount(), summary.GetFeatureCount(), summary.GetDistance(), summary.GetElapsedTime())
	return nil
}

// routeChat leaves six notes at three points, twice round, while it prints what comes back.
func routeChat(ctx context.Context, client *routechat.Client, out io.Writer) error {
	stream, err := client.RouteChat(ctx)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		defer func() { sent <- stream.CloseRequest() }()
		for i, message := range []string{"First", "Second", "Third", "Fourth", "Fifth", "Sixth"} {
			if stream.Send(&routeguide.RouteNote{
				Location: &routeguide.Point{Longitude: int32(i%3 + 1)},
				Message:  message + " message",
			}) != nil {
				return // The reason comes with Receive.
			}
		}
	}()
	for {
		note, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return errors.Join(<-sent, stream.CloseResponse())
		}
		if err != nil {
			_ = stream.CloseResponse()
			return errors.Join(err, <-sent)
		}
		fmt.Fprintf(out, "Got message %s at %s\n", line(note.GetMessage()), at(note.GetLocation()))
	}
}

func at(point *routeguide.Point) string {
	return fmt.Sprintf("point(%d, %d)", point.GetLatitude(), point.GetLongitude())
}

// line returns text as it is if it fits one line of a terminal and cannot do anything to it, and
// quoted otherwise: others wrote it.
func line(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}
