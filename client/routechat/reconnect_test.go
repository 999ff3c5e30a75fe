package routechat_test

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
)

// A cutProxy forwards connections to a server, one at a time, and cuts them in the middle of whatever the server is sending: every other
// connection after a random number of bytes, and the others after cutSoon.
type cutProxy struct {
	left atomic.Pointer[atomic.Int64] // of the newest connection: bytes until it is cut
}

// serve forwards connections to url until the test ends, and returns the URL of the proxy.
func (p *cutProxy) serve(t *testing.T, url string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var forwarding sync.WaitGroup
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		forwarding.Wait()
	})
	forwarding.Go(func() {
		for number := 1; ; number++ {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Error(err)
				return
			}
			left := new(atomic.Int64)
			left.Store(math.MaxInt64)
			if number%2 == 0 {
				left.Store(rand.Int64N(2 << 10))
			}
			p.left.Store(left)
			forwarding.Go(func() {
				_, _ = io.Copy(server, client)
				_ = server.Close()
			})
			forwarding.Go(func() {
				_, _ = io.Copy(limitedConn{client, left}, server)
				if rand.N(2) == 0 {
					_ = client.(*net.TCPConn).SetLinger(0) // RST instead of FIN
				}
				_ = client.Close()
			})
		}
	})
	return "http://" + listener.Addr().String()
}

// cutSoon cuts the newest connection soon. The backoff of a client that calls it at each progress does not grow.
func (p *cutProxy) cutSoon() {
	p.left.Load().Store(rand.Int64N(24 << 10))
}

// A limitedConn ends with an error when no bytes are left.
type limitedConn struct {
	net.Conn

	left *atomic.Int64
}

func (c limitedConn) Write(bytes []byte) (int, error) {
	left := c.left.Add(-int64(len(bytes)))
	if left >= 0 {
		return c.Conn.Write(bytes)
	}
	n, _ := c.Conn.Write(bytes[:max(0, int64(len(bytes))+left)])
	return n, io.ErrShortWrite
}

// heardNotes counts the notes that each follower has heard.
type heardNotes struct {
	mu    sync.Mutex
	grown sync.Cond
	notes map[string]int // by follower
}

// set sets the number of notes that a follower has heard.
func (h *heardNotes) set(follower string, notes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notes[follower] = notes
	h.grown.Broadcast()
}

// await waits until a follower has heard a number of notes.
func (h *heardNotes) await(follower string, notes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.notes[follower] < notes {
		h.grown.Wait()
	}
}

// Notes are left while the connections of followers are cut at random: each follower hears the log of each location.
func TestFollowThroughBrokenConnections(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	const (
		rounds    = 24
		locations = 3
		writers   = 2  // at each location
		ahead     = 10 // notes of a writer in a round
	)
	base := rand.Int32N(900000000 - locations) // Another one at each run of the test.
	at := func(i int) *routeguide.Point { return &routeguide.Point{Latitude: base + int32(i), Longitude: 1} }
	everywhere := &routeguidev1.FollowNotesRequest{Newest: new(int32(1000)), Filter: &routeguidev1.FollowNotesRequest_Rectangle{
		Rectangle: &routeguide.Rectangle{Lo: at(0), Hi: at(locations - 1)},
	}}
	heard := &heardNotes{notes: map[string]int{}}
	heard.grown.L = &heard.mu
	var following sync.WaitGroup
	follow := func(name string, request *routeguidev1.FollowNotesRequest, locations int, options ...connect.ClientOption) map[int32][]string {
		proxy := &cutProxy{}
		client := dial(t, proxy.serve(t, url), options...)
		texts := map[int32][]string{}
		following.Go(func() {
			defer heard.set(name, math.MaxInt) // Nobody waits for one that has ended.
			lost, resumable, count, ends := 0, false, 0, 0
			for event, err := range client.Follow(t.Context(), request) {
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				if event.Lost != nil {
					lost++
				}
				if event.Reset {
					if resumable {
						t.Errorf("%s: a reset, although there is a cursor", name)
					}
					clear(texts)
					count = 0
				}
				resumable = resumable || len(event.Cursor) > 0
				for _, note := range event.Notes {
					latitude := note.GetLocation().GetLatitude()
					texts[latitude] = append(texts[latitude], note.GetText())
					if note.GetText() == "end" {
						ends++
					}
				}
				if event.Current {
					proxy.cutSoon()
				}
				count += len(event.Notes)
				heard.set(name, count)
				if ends == locations {
					break
				}
			}
			t.Logf("%s: the connection was lost %d times", name, lost)
			if lost == 0 {
				t.Errorf("%s: the connection was not lost", name)
			}
		})
		return texts
	}
	got := map[string]map[int32][]string{
		"connect": follow("connect", everywhere, locations),
		"grpc":    follow("grpc", everywhere, locations, connect.WithGRPC()),
		"grpcweb": follow("grpcweb", &routeguidev1.FollowNotesRequest{
			Newest: new(int32(1000)), Filter: &routeguidev1.FollowNotesRequest_Location{Location: at(0)},
		}, 1, connect.WithGRPCWeb(), connect.WithProtoJSON()),
	}

	client := dial(t, url)
	leave := func(location int, text string) {
		if _, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: at(location), Message: text}); err != nil {
			t.Error(err)
		}
	}
	for round := range rounds {
		// Half of the rounds begin while followers have not heard the one before.
		before := (round - round%2) * writers * ahead
		heard.await("connect", before*locations)
		heard.await("grpc", before*locations)
		heard.await("grpcweb", before)
		var leaving sync.WaitGroup
		for i := range locations * writers {
			leaving.Go(func() {
				for n := range ahead {
					leave(i%locations, fmt.Sprintf("%d of writer %d in round %d", n, i/locations, round))
				}
			})
		}
		leaving.Wait()
	}
	for i := range locations {
		leave(i, "end")
	}
	following.Wait()
	for i := range locations {
		want := readLog(t, client, at(i))
		if len(want) != rounds*writers*ahead+1 {
			t.Errorf("the log has %d notes", len(want))
		}
		for name, texts := range got {
			if list := texts[base+int32(i)]; !slices.Equal(list, want) && (name != "grpcweb" || i == 0) {
				t.Errorf("%s has heard %d notes at location %d, want the log, which has %d: %q", name, len(list), i, len(want), list)
			}
		}
	}
}
