package browser

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/internal/process"
)

// A server is the built server, which can be killed and started again at the same address.
type server struct {
	t       *testing.T
	process *process.Process
	address string
	args    []string
	tls     bool
	client  *routechat.Client // without a token
}

// startServer runs the server until the test ends. It keeps notes in memory, unless args have another store.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, args: append([]string{"--store", "memory:"}, args...), tls: slices.Contains(args, "--tls-cert")}
	var err error
	if s.process, s.address, err = process.StartServer(ourServer, s.args...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.process.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := s.connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	return s
}

// onDisk returns the flags of a store that survives kill -9.
func onDisk(t *testing.T) []string {
	t.Helper()
	return []string{"--store", "pebble:" + filepath.Join(t.TempDir(), "notes")}
}

// withFeatures returns the flags of a server with features at some places.
func withFeatures(t *testing.T, places ...place) []string {
	t.Helper()
	names := make(map[place]string)
	for _, at := range places {
		names[at] = "a feature"
	}
	return withNames(t, names)
}

// withNames is withFeatures for features with these names.
func withNames(t *testing.T, names map[place]string) []string {
	t.Helper()
	features := make([]map[string]any, 0, len(names)) // Not nil: the file may have none.
	for at, name := range names {
		features = append(features, map[string]any{"location": map[string]int32{"latitude": e7(at.latitude), "longitude": e7(at.longitude)}, "name": name})
	}
	encoded, err := json.Marshal(features)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "features.json")
	if err := os.WriteFile(file, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--features", file}
}

func (s *server) url() string {
	if s.tls {
		return "https://" + s.address
	}
	return "http://" + s.address
}

// connect makes the client of a server.
func (s *server) connect() error {
	var config routechat.Config
	if s.tls {
		encoded, err := os.ReadFile(certificate)
		if err != nil {
			return err
		}
		config.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		config.TLS.RootCAs.AppendCertsFromPEM(encoded)
	}
	var err error
	s.client, err = config.New(s.url())
	return err
}

// kill ends the server as kill -9 does.
func (s *server) kill() {
	s.t.Helper()
	if err := s.process.Kill(); err != nil {
		s.t.Fatal(err)
	}
}

// restart starts the server that was killed, at the same address.
func (s *server) restart() {
	s.t.Helper()
	restarted, address, err := process.StartServer(ourServer, append(s.args, "--listen", s.address)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.process = restarted
	if address != s.address {
		s.t.Fatalf("the server came back at %s, not at %s", address, s.address)
	}
}

// A place is a location in degrees.
type place struct{ latitude, longitude float64 }

// point returns the location in the contract's unit, E7 degrees.
func (p place) point() *routeguide.Point {
	return &routeguide.Point{Latitude: e7(p.latitude), Longitude: e7(p.longitude)}
}

// e7 returns degrees in the contract's unit.
func e7(degrees float64) int32 {
	return int32(math.Round(degrees * 1e7))
}

// everywhere is the rectangle of the whole world.
var everywhere = &routeguide.Rectangle{
	Lo: &routeguide.Point{Latitude: -90_0000000, Longitude: -180_0000000},
	Hi: &routeguide.Point{Latitude: 90_0000000, Longitude: 180_0000000},
}

// leave leaves a note by LeaveNote.
func (s *server) leave(at place, text string) *routeguidev1.Note {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	note, err := s.client.Leave(ctx, &routeguide.RouteNote{Location: at.point(), Message: text})
	if err != nil {
		s.t.Fatal(err)
	}
	return note
}

// chat leaves a note by a RouteChat of the tutorial's kind.
func (s *server) chat(at place, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	chat, err := s.client.RouteChat(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := chat.Send(&routeguide.RouteNote{Location: at.point(), Message: text}); err != nil {
		s.t.Fatal(err)
	}
	if err := chat.CloseRequest(); err != nil {
		s.t.Fatal(err)
	}
	for {
		if _, err := chat.Receive(); err != nil {
			break
		}
	}
	if err := chat.CloseResponse(); err != nil {
		s.t.Fatal(err)
	}
}

// fill leaves a note at each of many places, spread over a rectangle.
func (s *server) fill(t *testing.T, places int, southWest, northEast place) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	chat, err := s.client.RouteChat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var receiver sync.WaitGroup
	defer receiver.Wait()
	receiver.Go(func() {
		for received := 0; ; received++ {
			if _, err := chat.Receive(); err != nil {
				if !errors.Is(err, io.EOF) || received != places {
					t.Errorf("%d notes of %d were answered: %v", received, places, err)
				}
				return
			}
		}
	})
	for i := range places {
		if err := chat.Send(&routeguide.RouteNote{Location: nth(i, places, southWest, northEast).point(), Message: "note " + strconv.Itoa(i)}); err != nil {
			t.Error(err)
			break
		}
	}
	if err := chat.CloseRequest(); err != nil {
		t.Error(err)
	}
}

// nth returns one of many places that are spread evenly over a rectangle, the next one far from it: a Kronecker sequence.
func nth(i, places int, southWest, northEast place) place {
	const golden = 0.6180339887498949
	_, share := math.Modf(float64(i) * golden)
	return place{
		southWest.latitude + (northEast.latitude-southWest.latitude)*(float64(i)+0.5)/float64(places),
		southWest.longitude + (northEast.longitude-southWest.longitude)*share,
	}
}

// features returns how many features the server has in a rectangle.
func (s *server) features(rectangle *routeguide.Rectangle) int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	stream, err := s.client.ListFeatures(ctx, rectangle)
	if err != nil {
		s.t.Fatal(err)
	}
	defer stream.Close()
	count := 0
	for stream.Receive() {
		count++
	}
	if err := stream.Err(); err != nil {
		s.t.Fatal(err)
	}
	return count
}

// notes returns the notes in a rectangle, at most the newest 1,000 of each location.
func (s *server) notes(rectangle *routeguide.Rectangle) []*routeguidev1.Note {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	newest := int32(1000)
	stream, err := s.client.FollowNotes(ctx, &routeguidev1.FollowNotesRequest{
		Filter: &routeguidev1.FollowNotesRequest_Rectangle{Rectangle: rectangle}, Newest: &newest,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	defer stream.Close()
	var notes []*routeguidev1.Note
	for stream.Receive() {
		notes = append(notes, stream.Msg().GetNotes()...)
		if stream.Msg().GetCurrent() {
			return notes
		}
	}
	s.t.Fatal(fmt.Errorf("the stream ended before it was current: %w", stream.Err()))
	return nil
}

// count returns how many of the notes have a text.
func count(notes []*routeguidev1.Note, text string) int {
	found := 0
	for _, note := range notes {
		if note.GetText() == text {
			found++
		}
	}
	return found
}
