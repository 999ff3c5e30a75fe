package service_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/server/internal/service"
)

// lostAfter is when a test gives up a stream on which it waits for a note.
const lostAfter = time.Minute

type (
	noteClient    = routeguidev1connect.NoteServiceClient
	followRequest = routeguidev1.FollowNotesRequest
)

// inEachFollowing runs a test with a client of NoteService for each protocol and codec, over HTTP/2 and, where the protocol can,
// over HTTP/1.1, each with a server of its own.
func inEachFollowing(t *testing.T, options func() service.Options, test func(*testing.T, noteClient)) {
	t.Helper()
	codecs := map[string]connect.ClientOption{"proto": connect.WithClientOptions(), "json": connect.WithProtoJSON()}
	for protocol, protocolOption := range map[string]connect.ClientOption{
		"connect": connect.WithClientOptions(),
		"grpc":    connect.WithGRPC(),
		"grpcweb": connect.WithGRPCWeb(),
	} {
		for codec, codecOption := range codecs {
			t.Run(protocol+" "+codec, func(t *testing.T) {
				t.Parallel()
				url, _ := startWith(t, options())
				test(t, dial(t, url, protocolOption, codecOption))
			})
			if protocol == "grpc" {
				continue // It needs HTTP/2.
			}
			t.Run(protocol+" "+codec+" over HTTP1", func(t *testing.T) {
				t.Parallel()
				url, _ := startWith(t, options())
				test(t, dialHTTP1(t, url, protocolOption, codecOption))
			})
		}
	}
}

func dialHTTP1(t *testing.T, url string, options ...connect.ClientOption) noteClient {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return routeguidev1connect.NewNoteServiceClient(&http.Client{Transport: transport}, url, options...)
}

// dialNarrowFollower is dialNarrow for NoteService.
func dialNarrowFollower(t *testing.T, url string, options ...connect.ClientOption) noteClient {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
	t.Cleanup(transport.CloseIdleConnections)
	return routeguidev1connect.NewNoteServiceClient(&http.Client{Transport: transport}, url, options...)
}

// follower is a call of FollowNotes, and what it has received.
type follower struct {
	stream *connect.ServerStreamForClient[routeguidev1.FollowNotesResponse]
	cancel context.CancelFunc
	notes  []*routeguidev1.Note
	// marked is the number of notes up to the last cursor.
	marked   int
	cursor   []byte
	currents int
	resets   int
	area     bool // a rectangle is followed, of which notes may come twice
	doubles  int
	seen     map[[2]uint64]bool
}

// follow opens a call of FollowNotes, until the end of the test.
func follow(t *testing.T, client noteClient, request *followRequest) *follower {
	t.Helper()
	return followUntil(t.Context(), t, client, request)
}

func followUntil(ctx context.Context, t *testing.T, client noteClient, request *followRequest) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(lostAfter, cancel)
	stream, err := client.FollowNotes(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	following := &follower{stream: stream, area: request.GetRectangle() != nil}
	following.cancel = func() {
		timer.Stop()
		cancel()
		_ = stream.Close()
	}
	t.Cleanup(following.cancel)
	return following
}

// receive receives a response, or returns the error with which the call has ended. It drops doubles.
func (f *follower) receive() error {
	if !f.stream.Receive() {
		if f.stream.Err() == nil {
			return io.EOF
		}
		return f.stream.Err()
	}
	response := f.stream.Msg()
	if response.GetReset_() {
		f.resets++
		f.notes, f.seen = nil, nil
	}
	for _, note := range response.GetNotes() {
		if f.seen == nil {
			f.seen = make(map[[2]uint64]bool)
		}
		if f.seen[key(note)] {
			f.doubles++
			continue
		}
		f.seen[key(note)] = true
		f.notes = append(f.notes, note)
	}
	if len(response.GetCursor()) > 0 {
		f.cursor, f.marked = response.GetCursor(), len(f.notes)
	}
	if response.GetCurrent() {
		f.currents++
	}
	return nil
}

// until receives until a condition holds.
func (f *follower) until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for !condition() {
		if err := f.receive(); err != nil {
			t.Fatalf("%v, before it was sent %s; it has %d notes", err, what, len(f.notes))
		}
	}
}

func (f *follower) untilCurrent(t *testing.T) {
	t.Helper()
	f.until(t, "current", func() bool { return f.currents > 0 })
}

func (f *follower) untilNotes(t *testing.T, count int) {
	t.Helper()
	f.until(t, fmt.Sprint(count, " notes"), func() bool { return len(f.notes) >= count })
}

// end receives until the call has ended, and returns its error.
func (f *follower) end() error {
	for {
		if err := f.receive(); err != nil {
			return err
		}
	}
}

// texts returns the texts of the notes received.
func (f *follower) texts() []string {
	var texts []string
	for _, note := range f.notes {
		texts = append(texts, note.GetText())
	}
	return texts
}

// check fails the test unless the call was sent notes with these texts, and current and reset so many times.
func (f *follower) check(t *testing.T, currents, resets int, want ...string) {
	t.Helper()
	if got := f.texts(); !slices.Equal(got, want) {
		t.Errorf("got the notes %q, want %q", got, want)
	}
	if f.doubles > 0 && !f.area {
		t.Errorf("got %d notes twice", f.doubles)
	}
	if f.currents != currents || f.resets != resets {
		t.Errorf("got current %d times and reset %d times, want %d and %d", f.currents, f.resets, currents, resets)
	}
}

// atLocation returns a request to follow a location of latitude 0.
func atLocation(longitude int32, newest *int32, cursor ...byte) *followRequest {
	return &followRequest{Filter: &routeguidev1.FollowNotesRequest_Location{Location: point(0, longitude)}, Newest: newest, Cursor: cursor}
}

// within returns a request to follow the latitudes from -10 to 10 between two longitudes.
func within(west, east int32, newest *int32, cursor ...byte) *followRequest {
	rectangle := &routeguide.Rectangle{Lo: point(-10, west), Hi: point(10, east)}
	return &followRequest{Filter: &routeguidev1.FollowNotesRequest_Rectangle{Rectangle: rectangle}, Newest: newest, Cursor: cursor}
}

func everywhere(newest *int32, cursor ...byte) *followRequest {
	rectangle := &routeguide.Rectangle{Lo: point(-900000000, -1800000000), Hi: point(900000000, 1800000000)}
	return &followRequest{Filter: &routeguidev1.FollowNotesRequest_Rectangle{Rectangle: rectangle}, Newest: newest, Cursor: cursor}
}

// leaveTexts leaves notes at a location of latitude 0.
func leaveTexts(t *testing.T, client noteClient, longitude int32, texts ...string) {
	t.Helper()
	for _, text := range texts {
		leave(t, client, leaving(longitude, text, ""))
	}
}

// numbers returns the decimal numbers from first to last.
func numbers(first, last int) []string {
	var texts []string
	for i := first; i <= last; i++ {
		texts = append(texts, fmt.Sprint(i))
	}
	return texts
}

// heard returns the longitudes of the notes received, sorted.
func (f *follower) heard() []int32 {
	var longitudes []int32
	for _, note := range f.notes {
		longitudes = append(longitudes, note.GetLocation().GetLongitude())
	}
	slices.Sort(longitudes)
	return longitudes
}
