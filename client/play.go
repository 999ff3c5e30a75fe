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

type playFlags struct {
	callFlags `embed:""`
}

func (f *playFlags) run(ctx context.Context, stdout io.Writer) error {
	client, err := f.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return play(ctx, client, stdout)
}

// callTimeout is the deadline of each call.
const callTimeout = 10 * time.Second

// play makes the four calls of the tutorials, and prints the responses.
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

// getFeatures calls GetFeature for a point with a feature, and for one without.
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
			fmt.Fprintf(out, "Found nothing at %s\n", formatPoint(feature.GetLocation()))
			continue
		}
		fmt.Fprintf(out, "Found %s at %s\n", line(feature.GetName()), formatPoint(feature.GetLocation()))
	}
	return nil
}

// listFeatures lists the features between 40 and 42 degrees north, 75 and 73 degrees west.
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
		fmt.Fprintf(out, "Listed %s at %s\n", line(feature.GetName()), formatPoint(feature.GetLocation()))
	}
	return errors.Join(stream.Err(), stream.Close())
}

// recordRoute records a route of four points in New Jersey.
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
			return err // After io.EOF, CloseAndReceive returns the server's error.
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

// routeChat sends six notes, two at each of three points, and prints the replies concurrently.
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
				return // Receive returns the server's error.
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
		fmt.Fprintf(out, "Got message %s at %s\n", line(note.GetMessage()), formatPoint(note.GetLocation()))
	}
}

func formatPoint(point *routeguide.Point) string {
	return fmt.Sprintf("point(%d, %d)", point.GetLatitude(), point.GetLongitude())
}

// line returns text from other users for a terminal: quoted if it has a line break, an escape sequence or another
// character that is not printable.
func line(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}
