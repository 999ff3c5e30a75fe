package live

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/server/internal/notes"
)

// appendNote encodes what package proto would.
func TestAppendNote(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	number := func() int32 { return []int32{0, 1, -1, math.MaxInt32, math.MinInt32, random.Int32()}[random.IntN(6)] }
	text := func(most int) string {
		return []string{"", "note", "é", strings.Repeat("x", random.IntN(most)), strings.Repeat("y", most)}[random.IntN(5)]
	}
	marshal := func(note *routeguide.RouteNote) []byte {
		encoded, err := proto.Marshal(note)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	for range 10_000 {
		location := &routeguide.Point{Latitude: number(), Longitude: number()}
		left := &routeguide.RouteNote{Location: location, Message: text(40_000)}
		encoded := marshal(left)
		switch random.IntN(4) {
		case 0: // An unknown field.
			encoded = append(encoded, 0x18, 1)
		case 1: // The text comes first.
			encoded = slices.Concat(marshal(&routeguide.RouteNote{Message: left.GetMessage()}), marshal(&routeguide.RouteNote{Location: location}))
		}
		note := &notes.Note{
			Position: notes.Position([]uint64{0, 1, random.Uint64N(1 << 20), math.MaxUint64}[random.IntN(4)]),
			Time:     []int64{0, 1e9, -1, random.Int64(), math.MinInt64}[random.IntN(5)],
			ID:       text(notes.MaxID),
			Encoded:  encoded,
		}
		want := &routeguidev1.FollowNotesResponse{Notes: []*routeguidev1.Note{{
			Location:  location,
			Text:      left.GetMessage(),
			Position:  uint64(note.Position),
			LeaveTime: timestamppb.New(time.Unix(0, note.Time)),
			Id:        note.ID,
		}}}
		at := notes.Location{Latitude: location.GetLatitude(), Longitude: location.GetLongitude()}
		var got routeguidev1.FollowNotesResponse
		if err := proto.Unmarshal(appendNote([]byte(nil), at, note), &got); err != nil || !proto.Equal(&got, want) {
			t.Fatalf("got %v, %v, want %v", &got, err, want)
		}
	}
	for name, note := range map[string]*notes.Note{
		"no RouteNote": {Position: 1, Encoded: []byte{0xff}},
		"a bad text":   {Position: 1, Encoded: []byte{0x0a, 0, 0x12, 1, 0xff}},
		"a bad ID":     {Position: 1, Encoded: []byte{0x0a, 0}, ID: "\x00\xff"},
	} {
		if got := appendNote([]byte("before"), notes.Location{}, note); string(got) != "before" {
			t.Errorf("%s is encoded as %q", name, got)
		}
	}
}
