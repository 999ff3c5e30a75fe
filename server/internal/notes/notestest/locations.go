package notestest

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

func locations(t *testing.T, store notes.Store) {
	all := []notes.Location{
		{Latitude: math.MinInt32, Longitude: math.MaxInt32},
		{Latitude: math.MaxInt32, Longitude: math.MinInt32},
		{Latitude: math.MaxInt32, Longitude: math.MaxInt32},
	}
	for i := range int32(3000) {
		location := notes.Location{Latitude: i - 1500, Longitude: -i * 7}
		all = append(all, location)
		if i%10 == 0 {
			all = append(all, location)
		}
	}
	appendAll(t, store, all, short)
	want := make(map[notes.Location]bool)
	for _, location := range all {
		want[location] = true
	}
	for _, location := range list(t, store, notes.World, nil) {
		if !want[location] {
			t.Errorf("%v has no notes, or is listed twice", location)
		}
		delete(want, location)
	}
	if len(want) > 0 {
		t.Errorf("%d locations are not listed", len(want))
	}
}

// list returns the locations in a rectangle.
func list(t *testing.T, store notes.Store, within notes.Rectangle, after *notes.Location) []notes.Location {
	t.Helper()
	var found []notes.Location
	for location, err := range store.Locations(t.Context(), within, after) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, location)
	}
	return found
}

// inside returns the locations of a list that are in a rectangle, in the order of [notes.Store.Locations].
func inside(all []notes.Location, within notes.Rectangle) []notes.Location {
	var found []notes.Location
	for _, location := range all {
		if within.Contains(location) {
			found = append(found, location)
		}
	}
	slices.SortFunc(found, func(a, b notes.Location) int {
		if within.West > within.East && (a.Longitude >= within.West) != (b.Longitude >= within.West) {
			if a.Longitude >= within.West {
				return -1
			}
			return 1
		}
		if zorder.Of(a) < zorder.Of(b) {
			return -1
		}
		return 1
	})
	return found
}

func rectangles(t *testing.T, store notes.Store) {
	const count, side = 4000, 1_000_000
	random := rand.New(rand.NewPCG(1, 2))
	coordinate := func() int32 { return random.Int32N(side) - side/2 }
	seen := make(map[notes.Location]bool)
	var all []notes.Location
	for len(all) < count {
		location := notes.Location{Latitude: coordinate(), Longitude: coordinate()}
		if !seen[location] {
			seen[location] = true
			all = append(all, location)
		}
	}
	appendAll(t, store, all, short)
	corners := []notes.Rectangle{
		notes.World,
		{South: 1, North: 0, West: 0, East: 0},
		{South: math.MinInt32, North: math.MaxInt32, West: 0, East: -1},
		{South: all[0].Latitude, North: all[0].Latitude, West: all[0].Longitude, East: all[0].Longitude},
	}
	for range 60 {
		a, b := coordinate(), coordinate()
		// West may be greater than East.
		corners = append(corners, notes.Rectangle{South: min(a, b), North: max(a, b), West: coordinate(), East: coordinate()})
	}
	for _, within := range corners {
		want := inside(all, within)
		if got := list(t, store, within, nil); !slices.Equal(got, want) {
			t.Errorf("%v has %d locations, want %d", within, len(got), len(want))
			continue
		}
		for range 3 {
			if len(want) == 0 {
				break
			}
			after := random.IntN(len(want))
			if got := list(t, store, within, &want[after]); !slices.Equal(got, want[after+1:]) {
				t.Errorf("%v after number %d has %d locations, want %d", within, after, len(got), len(want)-after-1)
			}
		}
	}
}

func locationsCancelled(t *testing.T, store notes.Store) {
	add(t, store, notes.Location{}, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for location, err := range store.Locations(ctx, notes.World, nil) {
		if err == nil {
			t.Errorf("got %v after the context had ended", location)
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", last)
	}
}
