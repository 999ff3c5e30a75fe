package service_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

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
