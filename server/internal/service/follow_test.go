package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/gen/routeguide/v1/routeguidev1connect"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
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

func TestFollowNotesOfLocationStartsWithNewest(t *testing.T) {
	t.Parallel()
	inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
		const count = 30
		leaveTexts(t, client, 1, numbers(1, count)...)
		leaveTexts(t, client, 2, "elsewhere")
		for _, test := range []struct {
			newest *int32
			first  int
		}{{nil, 11}, {proto.Int32(0), count + 1}, {proto.Int32(1), count}, {proto.Int32(7), 24}, {proto.Int32(1000), 1}} {
			following := follow(t, client, atLocation(1, test.newest))
			following.untilCurrent(t)
			following.check(t, 1, 0, numbers(test.first, count)...)
			if len(following.cursor) == 0 {
				t.Error("current has no cursor")
			}
			following.cancel()
		}
		following := follow(t, client, atLocation(3, nil))
		following.untilCurrent(t)
		following.check(t, 1, 0)
	})
}

// What follows is what LeaveNote has returned.
func TestFollowNotesOfLocationHearsLaterNotes(t *testing.T) {
	t.Parallel()
	inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
		left := []*routeguidev1.Note{leave(t, client, leaving(1, "before", "an id"))}
		following := follow(t, client, atLocation(1, nil))
		other := follow(t, client, atLocation(1, proto.Int32(0)))
		following.untilCurrent(t)
		other.untilCurrent(t)
		for i := range 10 {
			leaveTexts(t, client, 2, "elsewhere")
			left = append(left, leave(t, client, leaving(1, fmt.Sprint(i), fmt.Sprint("id ", i))))
			leave(t, client, leaving(1, fmt.Sprint(i), fmt.Sprint("id ", i))) // The same note.
			following.untilNotes(t, len(left))
			other.untilNotes(t, len(left)-1)
		}
		if !slices.EqualFunc(following.notes, left, func(a, b *routeguidev1.Note) bool { return proto.Equal(a, b) }) {
			t.Errorf("got %v, want %v", following.notes, left)
		}
		following.check(t, 1, 0, append([]string{"before"}, numbers(0, 9)...)...)
		other.check(t, 1, 0, numbers(0, 9)...)
	})
}

func TestFollowNotesHearsRouteChat(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		if _, err := chatOf(t.Context(), client, note(1, "before")); err != nil {
			t.Fatal(err)
		}
		place, area := follow(t, client, atLocation(1, nil)), follow(t, client, within(0, 10, nil))
		place.untilCurrent(t)
		area.untilCurrent(t)
		chat := openChat(t, client) // It leaves a note.
		defer chat.CloseResponse()
		place.untilNotes(t, 2)
		if err := errors.Join(chat.Send(note(1, "b")), chat.Send(note(1, ""))); err != nil {
			t.Fatal(err)
		}
		place.untilNotes(t, 4)
		area.untilNotes(t, 4)
		place.check(t, 1, 0, "before", "a", "b", "")
		area.check(t, 1, 0, "before", "a", "b", "")
		if err := chat.CloseRequest(); err != nil {
			t.Error(err)
		}
	})
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

// The notes of a rectangle, edges included, are those of its snapshot and those that are left later.
func TestFollowNotesOfRectangle(t *testing.T) {
	t.Parallel()
	const limit, inside, outside = 1800000000, 1750000000, 1690000000
	longitudes := []int32{-limit, -inside, -1700000001, -1700000000, -1699999999, -outside, -1, 0, 1, outside, 1699999999, 1700000000, 1700000001, inside, limit}
	tests := []struct {
		name       string
		west, east int32
		want       []int32
	}{
		{"around 0", -1, 1, []int32{-1, 0, 1}},
		{"corners the other way", 1, -1, []int32{-1, 0, 1}},
		{"one point", 0, 0, []int32{0}},
		{"nothing", 100, 200, nil},
		{"across the antimeridian from the east", 1700000000, 1900000000, []int32{-limit, -inside, -1700000001, -1700000000, 1700000000, 1700000001, inside, limit}},
		{"across the antimeridian from the west", -1900000000, -1700000000, []int32{-limit, -inside, -1700000001, -1700000000, 1700000000, 1700000001, inside, limit}},
		{"beyond the antimeridian", 1840000000, 1900000000, []int32{-inside, -1700000001, -1700000000}},
		{"to the antimeridian", 1700000001, limit, []int32{-limit, 1700000001, inside, limit}},
		{"from the antimeridian", -limit, -1700000001, []int32{-limit, -inside, -1700000001, limit}},
		{"the antimeridian", limit, limit, []int32{-limit, limit}},
		{"everything", -limit, limit, longitudes},
		{"more than everything", -2000000000, 2000000000, longitudes},
	}
	inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
		leaveEverywhere := func(text string) {
			for _, longitude := range longitudes {
				leaveTexts(t, client, longitude, text)
			}
			leave(t, client, &routeguidev1.LeaveNoteRequest{Location: point(11, 0), Text: "north of it"})
			leave(t, client, &routeguidev1.LeaveNoteRequest{Location: point(-11, 0), Text: "south of it"})
		}
		leaveEverywhere("old")
		leaveEverywhere("before")
		var followers []*follower
		for _, test := range tests {
			following := follow(t, client, within(test.west, test.east, nil))
			following.untilCurrent(t)
			if got := following.heard(); !slices.Equal(got, test.want) {
				t.Errorf("%s: the snapshot has %d, want %d", test.name, got, test.want)
			}
			if slices.Contains(following.texts(), "old") {
				t.Errorf("%s: got %q, want one note of each location", test.name, following.texts())
			}
			followers = append(followers, following)
		}
		leaveEverywhere("later")
		leaveTexts(t, client, 150, "a note for the one that hears nothing")
		for i, test := range tests {
			following := followers[i]
			want := append(slices.Clone(test.want), test.want...)
			if test.name == "nothing" {
				want = append(want, 150)
			}
			slices.Sort(want)
			following.untilNotes(t, len(want))
			if got := following.heard(); !slices.Equal(got, want) {
				t.Errorf("%s: got notes at %d, want %d", test.name, got, want)
			}
			if following.currents != 1 || following.resets != 0 {
				t.Errorf("%s: got current %d times and reset %d times", test.name, following.currents, following.resets)
			}
			following.cancel()
		}
		for newest, want := range map[int32][]string{0: nil, 2: {"before", "later"}, 1000: {"old", "before", "later"}} {
			following := follow(t, client, within(1, 1, &newest))
			following.untilCurrent(t)
			following.check(t, 1, 0, want...)
			following.cancel()
		}
	})
}

// A note of a location of a rectangle is heard whole.
func TestFollowNotesOfRectangleHearsWhatLeaveNoteReturned(t *testing.T) {
	t.Parallel()
	inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
		want := []*routeguidev1.Note{leave(t, client, leaving(1, "before", "an id"))}
		following := follow(t, client, within(0, 2, nil))
		following.untilCurrent(t)
		want = append(want, leave(t, client, leaving(2, "later", "an id")))
		following.untilNotes(t, 2)
		if !slices.EqualFunc(following.notes, want, func(a, b *routeguidev1.Note) bool { return proto.Equal(a, b) }) {
			t.Errorf("got %v, want %v", following.notes, want)
		}
	})
}

// A call with a cursor sends what was left after it, and nothing that was sent before.
func TestFollowNotesContinuesAtCursor(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]func(cursor ...byte) *followRequest{
		"location":  func(cursor ...byte) *followRequest { return atLocation(1, nil, cursor...) },
		"rectangle": func(cursor ...byte) *followRequest { return within(-5, 5, proto.Int32(3), cursor...) },
		"the world": func(cursor ...byte) *followRequest { return everywhere(nil, cursor...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
				first := follow(t, client, request())
				first.untilCurrent(t)
				first.cancel()
				var cursor []byte
				for round := range 3 { // From an empty log on, and from notes on.
					missed := numbers(10*round, 10*round+9)
					leaveTexts(t, client, 1, missed...)
					if round == 0 {
						cursor = first.cursor
					}
					following := follow(t, client, request(cursor...))
					following.untilCurrent(t)
					following.check(t, 1, 0, missed...)
					cursor = following.cursor
					following.cancel()
				}
				nothing := follow(t, client, request(cursor...))
				nothing.untilCurrent(t)
				leaveTexts(t, client, 1, "later")
				nothing.untilNotes(t, 1)
				nothing.check(t, 1, 0, "later")
			})
		})
	}
}

// Followers that break off at random and continue at their last cursors miss nothing while notes are left, by RouteChat
// and LeaveNote, at the locations that they follow. At a location, nothing comes twice.
func TestFollowNotesThatBreaksOffMissesNothing(t *testing.T) {
	t.Parallel()
	const locations, writers, each = 3, 4, 500
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		var work sync.WaitGroup
		for writer := range writers {
			work.Go(func() {
				for i := range each {
					longitude, text := int32(i%locations), fmt.Sprintf("%d %d", writer, i)
					if writer%2 == 0 {
						if _, err := client.LeaveNote(t.Context(), leaving(longitude, text, "")); err != nil {
							t.Error(err)
						}
					}
				}
			})
			if writer%2 == 1 {
				work.Go(func() {
					sent := make([]*routeguide.RouteNote, each)
					for i := range sent {
						sent[i] = note(int32(i%locations), fmt.Sprintf("%d %d", writer, i))
					}
					for part := range slices.Chunk(sent, 10) {
						if _, err := chatOf(t.Context(), client, part...); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		var places [locations][]*routeguidev1.Note
		for longitude := range places {
			work.Go(func() {
				places[longitude] = followBreakingOff(t, client, func(cursor []byte) *followRequest {
					return atLocation(int32(longitude), proto.Int32(1000), cursor...)
				}, func(heard []*routeguidev1.Note) bool {
					return len(heard) == writers*((each+locations-1-longitude)/locations)
				})
			})
		}
		var area []*routeguidev1.Note
		work.Go(func() {
			area = followBreakingOff(t, client, func(cursor []byte) *followRequest { return within(-5, 5, proto.Int32(1000), cursor...) },
				func(heard []*routeguidev1.Note) bool { return len(distinct(heard)) == writers*each })
		})
		work.Wait()
		inArea := distinct(area)
		for longitude, heard := range places {
			log := follow(t, client, atLocation(int32(longitude), proto.Int32(1000)))
			log.untilCurrent(t)
			if !slices.EqualFunc(heard, log.notes, func(a, b *routeguidev1.Note) bool { return proto.Equal(a, b) }) {
				t.Errorf("the follower of longitude %d heard %d notes, and the log has %d", longitude, len(heard), len(log.notes))
			}
			for _, left := range log.notes {
				if !proto.Equal(inArea[key(left)], left) {
					t.Errorf("the follower of the rectangle did not hear %v", left)
				}
			}
		}
	})
}

func key(note *routeguidev1.Note) [2]uint64 {
	return [2]uint64{uint64(note.GetLocation().GetLongitude()), note.GetPosition()}
}

// distinct returns the notes without doubles.
func distinct(heard []*routeguidev1.Note) map[[2]uint64]*routeguidev1.Note {
	found := make(map[[2]uint64]*routeguidev1.Note)
	for _, note := range heard {
		found[key(note)] = note
	}
	return found
}

// followBreakingOff follows until it has heard all, and breaks off after each cursor or a few responses later. It drops what came
// after the last cursor, since that comes again.
func followBreakingOff(t *testing.T, client noteClient, request func(cursor []byte) *followRequest, all func(heard []*routeguidev1.Note) bool) []*routeguidev1.Note {
	var heard []*routeguidev1.Note
	var cursor []byte
	for progress := time.Now(); time.Since(progress) < lostAfter; {
		before := len(heard)
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(lostAfter, cancel)
		stream, err := client.FollowNotes(ctx, request(cursor))
		if err != nil {
			t.Error(err)
		}
		following := &follower{stream: stream, area: request(nil).GetRectangle() != nil}
		for more := rand.IntN(20); err == nil && (more > 0 || len(following.cursor) == 0); {
			if err = following.receive(); len(following.cursor) > 0 {
				more--
			}
			if err == nil && all(append(slices.Clip(heard), following.notes...)) {
				more = 0
			}
		}
		if err != nil || following.resets > 0 || following.doubles > 0 && !following.area {
			t.Errorf("%v, %d resets and %d doubles", err, following.resets, following.doubles)
		}
		finished := all(append(slices.Clip(heard), following.notes...))
		if finished {
			heard = append(heard, following.notes...)
		} else {
			heard = append(heard, following.notes[:following.marked]...)
		}
		if len(heard) > before {
			progress = time.Now() // How long all of it takes is the machine's matter.
		}
		cursor = following.cursor
		timer.Stop()
		cancel()
		_ = stream.Close()
		if finished || t.Failed() {
			return heard
		}
	}
	t.Errorf("not all was heard, but only %d notes", len(heard))
	return heard
}

func TestFollowNotesRefusesInvalidRequest(t *testing.T) {
	t.Parallel()
	inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
		leaveTexts(t, client, 1, "a")
		place, area := follow(t, client, atLocation(1, nil)), follow(t, client, within(-5, 5, nil))
		place.untilCurrent(t)
		area.untilCurrent(t)
		changed := slices.Clone(place.cursor)
		changed[len(changed)/2] ^= 1
		rectangle := func(lo, hi *routeguide.Point) *followRequest {
			return &followRequest{Filter: &routeguidev1.FollowNotesRequest_Rectangle{Rectangle: &routeguide.Rectangle{Lo: lo, Hi: hi}}}
		}
		for _, test := range []struct {
			name    string
			request *followRequest
			field   string
		}{
			{"no filter", &followRequest{}, "filter"},
			{"a latitude beyond the pole", &followRequest{Filter: &routeguidev1.FollowNotesRequest_Location{Location: point(900000001, 0)}}, "location.latitude"},
			{"a longitude beyond the antimeridian", atLocation(-1800000001, nil), "location.longitude"},
			{"half a rectangle", rectangle(point(1, 1), nil), "rectangle.hi"},
			{"the other half", rectangle(nil, point(1, 1)), "rectangle.lo"},
			{"a corner beyond the pole", rectangle(point(1, 1), point(-900000001, 1)), "rectangle.hi.latitude"},
			{"fewer than no notes", atLocation(1, proto.Int32(-1)), "newest"},
			{"too many notes", atLocation(1, proto.Int32(1001)), "newest"},
			{"too many notes of a rectangle", within(0, 1, proto.Int32(1001)), "newest"},
			{"no cursor", atLocation(1, nil, []byte("garbage")...), "cursor"},
			{"a long text as cursor", within(-5, 5, nil, make([]byte, 5000)...), "cursor"},
			{"part of a cursor", atLocation(1, nil, place.cursor[:len(place.cursor)-1]...), "cursor"},
			{"a cursor and more", atLocation(1, nil, append(slices.Clone(place.cursor), 0)...), "cursor"},
			{"a changed cursor", atLocation(1, nil, changed...), "cursor"},
			{"the cursor of another location", atLocation(2, nil, place.cursor...), "cursor"},
			{"the cursor of a rectangle", atLocation(1, nil, area.cursor...), "cursor"},
			{"the cursor of a location", within(-5, 5, nil, place.cursor...), "cursor"},
			{"the cursor of another rectangle", within(-5, 6, nil, area.cursor...), "cursor"},
		} {
			t.Run(test.name, func(t *testing.T) {
				checkField(t, follow(t, client, test.request).end(), test.field)
			})
		}
	})
}

// Only JSON can have both filters.
func TestFollowNotesRefusesTwoFilters(t *testing.T) {
	t.Parallel()
	url, _ := startWith(t, bounded())
	body := string(envelope([]byte(`{"location": {"latitude": 1}, "rectangle": {"lo": {}, "hi": {}}}`)))
	response, err := newHTTP2(t).Post(url+routeguidev1connect.NoteServiceFollowNotesProcedure, "application/connect+json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(got), "invalid_argument") || !strings.Contains(string(got), "filter") {
		t.Errorf("got %q, %v, want an error that names the filter", got, err)
	}
}

// A cursor of another store leads to a reset, the notes of this store, and current.
func TestFollowNotesResetsAtCursorOfAnotherStore(t *testing.T) {
	t.Parallel()
	otherURL, _ := startWith(t, bounded())
	other := dial(t, otherURL)
	leaveTexts(t, other, 1, numbers(1, 50)...)
	place, area := follow(t, other, atLocation(1, nil)), follow(t, other, within(-5, 5, nil))
	place.untilCurrent(t)
	area.untilCurrent(t)
	inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
		leaveTexts(t, client, 1, "1", "2", "3")
		for _, request := range []*followRequest{atLocation(1, proto.Int32(2), place.cursor...), within(-5, 5, proto.Int32(2), area.cursor...)} {
			following := follow(t, client, request)
			if err := following.receive(); err != nil || following.resets != 1 || len(following.notes) > 0 {
				t.Errorf("got %v, %v first, want a reset", following, err)
			}
			following.untilCurrent(t)
			following.check(t, 1, 1, "2", "3")
			leaveTexts(t, client, 1, "4")
			following.untilNotes(t, 3)
			following.check(t, 1, 1, "2", "3", "4")
			following.cancel()
			again := follow(t, client, &followRequest{Filter: request.GetFilter(), Cursor: following.cursor}) // Of this store now.
			again.untilCurrent(t)
			if again.resets != 0 || !slices.Equal(again.texts(), following.texts()[following.marked:]) {
				t.Errorf("got %q and %d resets after the cursor at %d", again.texts(), again.resets, following.marked)
			}
			again.cancel()
			leaveTexts(t, client, 1, "2", "3") // As before, for the next request.
		}
	})
}

// A cursor after which notes were forgotten leads to a reset. If nothing was missed, it does not.
func TestFollowNotesResetsAfterRetention(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]func(cursor ...byte) *followRequest{
		"location":  func(cursor ...byte) *followRequest { return atLocation(1, proto.Int32(5), cursor...) },
		"rectangle": func(cursor ...byte) *followRequest { return within(-5, 5, proto.Int32(5), cursor...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memorystore.New()
			options := bounded()
			options.Chats.Store = store // Without Retention, a note that is gone was forgotten, at any age.
			url, running := startWith(t, options)
			client := dial(t, url)
			leaveTexts(t, client, 1, "1", "2")
			first := follow(t, client, request())
			first.untilCurrent(t)
			first.cancel()
			leaveTexts(t, client, 1, "3", "4")
			kept := notes.Now()
			leaveTexts(t, client, 1, "5")
			still := follow(t, client, request(first.cursor...))
			still.untilCurrent(t)
			still.check(t, 1, 0, "3", "4", "5")
			still.cancel()
			if _, err := store.Forget(t.Context(), kept); err != nil {
				t.Fatal(err)
			}
			following := follow(t, client, request(first.cursor...))
			following.untilCurrent(t)
			following.check(t, 1, 1, "5")
			if resets := running.Live().Resets; resets != 1 {
				t.Errorf("%d resets are counted, want 1", resets)
			}
			leaveTexts(t, client, 1, "6")
			following.untilNotes(t, 2)
			following.check(t, 1, 1, "5", "6")
			if _, err := store.Forget(t.Context(), notes.Now()); err != nil {
				t.Fatal(err)
			}
			nothing := follow(t, client, request(first.cursor...))
			nothing.untilCurrent(t)
			nothing.check(t, 1, 1)
		})
	}
}

func TestFollowNotesRefusesLargeSnapshot(t *testing.T) {
	t.Parallel()
	options := func() service.Options {
		options := bounded()
		options.SnapshotLocations = 3
		return options
	}
	inEachFollowing(t, options, func(t *testing.T, client noteClient) {
		for longitude := range int32(4) {
			leaveTexts(t, client, longitude, "1", "2")
		}
		for _, request := range []*followRequest{within(0, 3, nil), everywhere(proto.Int32(1))} {
			err := follow(t, client, request).end()
			checkCode(t, err, connect.CodeResourceExhausted)
			if err == nil || !strings.Contains(err.Error(), "smaller") || !strings.Contains(err.Error(), "newest 0") {
				t.Errorf("the error is %v", err)
			}
			info, ok := detailOf[*errdetails.ErrorInfo](err)
			if !ok || info.GetReason() != "TOO_MANY_LOCATIONS" || info.GetDomain() != "routeguide.v1.NoteService" {
				t.Errorf("the error has the detail %v, want one with the reason TOO_MANY_LOCATIONS", info)
			}
		}
		smaller := follow(t, client, within(1, 3, nil))
		smaller.untilCurrent(t)
		smaller.check(t, 1, 0, "2", "2", "2")
		nothing := follow(t, client, everywhere(proto.Int32(0)))
		nothing.untilCurrent(t)
		leaveTexts(t, client, 3, "3")
		nothing.untilNotes(t, 1)
		nothing.check(t, 1, 0, "3")
	})
}

// The snapshot of a rectangle comes in many responses, each of bounded size.
func TestFollowNotesOfRectangleSendsLargeSnapshot(t *testing.T) {
	t.Parallel()
	url, _ := startWith(t, bounded())
	client := dial(t, url)
	const locations = 200
	text := strings.Repeat("x", 1000)
	for longitude := range int32(locations) {
		leaveTexts(t, client, longitude, text, text, text)
	}
	for _, client := range []noteClient{client, dial(t, url, connect.WithProtoJSON(), connect.WithGRPCWeb()), dialHTTP1(t, url)} {
		following := follow(t, client, within(0, locations, proto.Int32(2)))
		responses := 0
		for following.currents == 0 {
			if err := following.receive(); err != nil {
				t.Fatal(err)
			}
			responses++
		}
		if found := distinct(following.notes); len(found) != 2*locations || len(following.notes) != 2*locations || responses < 10 {
			t.Errorf("got %d notes, %d of them distinct, in %d responses", len(following.notes), len(found), responses)
		}
	}
}

// A follower that does not read hears everything once it reads on, in order, although its queue has overflowed.
func TestFollowNotesThatIsSlowCatchesUp(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	options := bounded()
	options.Chats.Store = store
	url, running := startWith(t, options)
	client := dial(t, url)
	const count = 3000
	place := follow(t, dialNarrowFollower(t, url), atLocation(1, nil))
	area := follow(t, dialNarrowFollower(t, url, connect.WithProtoJSON()), within(-5, 5, nil))
	fast := follow(t, client, atLocation(1, nil))
	for _, following := range []*follower{place, area, fast} {
		following.untilCurrent(t)
	}
	want := numbers(1, count)
	for i := range want {
		want[i] += strings.Repeat(" x", 1000)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for len(fast.notes) < count {
			if err := fast.receive(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for _, text := range want {
		encoded, err := proto.Marshal(note(1, text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := notes.Append(t.Context(), store, notes.Location{Longitude: 1}, notes.Note{Time: notes.Now(), Encoded: encoded}); err != nil {
			t.Fatal(err)
		}
	}
	reading.Wait()
	if overflows := running.Live().Overflows; overflows == 0 {
		t.Error("no queue has overflowed")
	}
	for _, following := range []*follower{place, area, fast} {
		following.untilNotes(t, count)
		if !slices.Equal(following.texts(), want) {
			t.Errorf("got %d notes, want %d in order", len(following.notes), count)
		}
	}
	leaveTexts(t, client, 1, "later") // They are live again.
	for _, following := range []*follower{place, area, fast} {
		following.untilNotes(t, count+1)
		if last := following.texts()[count]; last != "later" {
			t.Errorf("got %q, want the last note", last)
		}
	}
}

// A silent follower gets a cursor from time to time.
func TestFollowNotesSendsHeartbeats(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	url, _ := startWith(t, bounded())
	client := dial(t, url)
	leaveTexts(t, client, 1, "1")
	requests := []func(cursor ...byte) *followRequest{
		func(cursor ...byte) *followRequest { return atLocation(1, nil, cursor...) },
		func(cursor ...byte) *followRequest { return within(-5, 5, nil, cursor...) },
	}
	clients := []noteClient{client, dial(t, url, connect.WithProtoJSON()), dialHTTP1(t, url)}
	var followers []*follower
	for _, client := range clients {
		for _, request := range requests {
			following := follow(t, client, request())
			following.untilCurrent(t)
			followers = append(followers, following)
		}
	}
	for i, following := range followers { // All wait at the same time.
		following.cursor = nil
		following.until(t, "a heartbeat", func() bool { return len(following.cursor) > 0 })
		following.check(t, 1, 0, "1")
		again := follow(t, clients[i/len(requests)], requests[i%len(requests)](following.cursor...))
		again.untilCurrent(t)
		again.check(t, 1, 0)
	}
}

func TestFollowNotesEndsAtDeadline(t *testing.T) {
	t.Parallel()
	inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		checkCode(t, followUntil(ctx, t, client, atLocation(1, nil)).end(), connect.CodeDeadlineExceeded)
	})
}

func TestMaxChatAgeEndsFollowNotes(t *testing.T) {
	t.Parallel()
	options := func() service.Options {
		options := bounded()
		options.MaxChatAge = 200 * time.Millisecond
		return options
	}
	inEachFollowing(t, options, func(t *testing.T, client noteClient) {
		leaveTexts(t, client, 1, "1")
		following := follow(t, client, within(-5, 5, nil))
		err := following.end()
		checkCode(t, err, connect.CodeUnavailable)
		if err == nil || !strings.Contains(err.Error(), "maximum age") {
			t.Errorf("the error is %v", err)
		}
		following.check(t, 1, 0, "1")
		leaveTexts(t, client, 1, "2")
		again := follow(t, client, within(-5, 5, nil, following.cursor...))
		again.untilCurrent(t)
		again.check(t, 1, 0, "2")
	})
}

// A drain sends each follower what was kept before, however slow it is, and a cursor that is valid on another server of the store.
func TestDrainSendsFollowersWhatWasKept(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	options := bounded()
	options.Chats.Store = store
	url, running := startWith(t, options)
	other, _ := startWith(t, options)
	const count = 500
	text := strings.Repeat("x", 1000)
	requests := map[string]func(cursor ...byte) *followRequest{
		"location":  func(cursor ...byte) *followRequest { return atLocation(1, nil, cursor...) },
		"rectangle": func(cursor ...byte) *followRequest { return within(-5, 5, nil, cursor...) },
	}
	followers := make(map[string]*follower)
	for name, request := range requests {
		for codec, option := range map[string]connect.ClientOption{"proto": connect.WithGRPC(), "json": connect.WithProtoJSON()} {
			slow, idle := follow(t, dialNarrowFollower(t, url, option), request()), follow(t, dial(t, url, option), request())
			slow.untilCurrent(t)
			idle.untilCurrent(t)
			followers[name+" slow "+codec], followers[name+" idle "+codec] = slow, idle
		}
	}
	client := dial(t, url)
	for range count {
		leaveTexts(t, client, 1, text)
	}
	running.Drain()
	ends := make(map[string]error)
	for name, following := range followers {
		ends[name] = following.end()
	}
	awaitDrained(t, running)
	leaveTexts(t, dial(t, other), 1, "after the drain")
	for name, following := range followers {
		err := ends[name]
		checkCode(t, err, connect.CodeUnavailable)
		if err == nil || !strings.Contains(err.Error(), "shutting down") {
			t.Errorf("%s: the error is %v", name, err)
		}
		if len(following.notes) < count || following.marked != len(following.notes) {
			t.Errorf("%s: got %d of %d notes, and a cursor after %d", name, len(following.notes), count, following.marked)
		}
		location, _, _ := strings.Cut(name, " ")
		again := follow(t, dial(t, other), requests[location](following.cursor...))
		again.untilCurrent(t)
		all := append(following.texts(), again.texts()...)
		if want := append(slices.Repeat([]string{text}, count), "after the drain"); !slices.Equal(all, want) {
			t.Errorf("%s: got %d notes in both calls, want %d", name, len(all), len(want))
		}
	}
	if followers := running.Live().Followers; followers != 0 {
		t.Errorf("%d followers are left", followers)
	}
	checkCode(t, follow(t, client, atLocation(1, nil)).end(), connect.CodeUnavailable)
}

// MaxFollowers bounds the calls of FollowNotes, in total and for each client, and counts no other calls.
func TestMaxFollowersRefusesFollowNotes(t *testing.T) {
	t.Parallel()
	for text, quota := range map[string]struct {
		most  int
		share float64
	}{"on this server": {2, 0}, "of this client": {20, 0.1}} {
		options := func() service.Options {
			options := bounded()
			options.MaxFollowers, options.ClientShare = quota.most, quota.share
			options.MaxChats, options.MaxCalls = 10, 10
			return options
		}
		inEachFollowing(t, options, func(t *testing.T, client noteClient) {
			first, second := follow(t, client, atLocation(1, nil)), follow(t, client, within(0, 1, nil))
			first.untilCurrent(t)
			second.untilCurrent(t)
			for range 20 {
				err := follow(t, client, atLocation(2, nil)).end()
				checkCode(t, err, connect.CodeResourceExhausted)
				if err == nil || !strings.Contains(err.Error(), "followers") || !strings.Contains(err.Error(), text) {
					t.Fatalf("the error is %v", err)
				}
			}
			leaveTexts(t, client, 1, "a call meanwhile")
			first.untilNotes(t, 1)
			first.cancel()
			second.cancel()
			// The server learns of it a little later.
			for deadline := time.Now().Add(lostAfter); ; {
				third := follow(t, client, atLocation(1, nil))
				err := third.receive()
				third.cancel()
				if err == nil {
					break
				}
				if checkCode(t, err, connect.CodeResourceExhausted); time.Now().After(deadline) {
					t.Fatal("the quota is not released")
				}
			}
		})
	}
}

// Followers that come and go leave nothing behind.
func TestFollowNotesThatEndsIsForgotten(t *testing.T) {
	t.Parallel()
	url, running := startWith(t, bounded())
	client := dial(t, url)
	open := make(map[int]*follower)
	for i := range 50 {
		following := follow(t, client, []*followRequest{atLocation(1, nil), within(-5, 5, nil), everywhere(proto.Int32(0))}[i%3])
		following.untilCurrent(t)
		open[i] = following
	}
	if followers := running.Live().Followers; followers != 50 {
		t.Errorf("there are %d followers, want 50", followers)
	}
	for following := range maps.Values(open) {
		following.cancel()
	}
	for running.Live().Followers > 0 {
		time.Sleep(time.Millisecond)
	}
	if calls := running.Calls(); calls != 0 {
		t.Errorf("%d other calls are open", calls)
	}
}
