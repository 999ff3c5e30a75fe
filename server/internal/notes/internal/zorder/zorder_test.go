package zorder_test

import (
	"math"
	"slices"
	"testing"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

func TestOfKeepsOrderOfQuadrants(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		latitude, longitude int32
		want                uint64
	}{
		{math.MinInt32, math.MinInt32, 0},
		{math.MinInt32, math.MinInt32 + 1, 1},
		{math.MinInt32 + 1, math.MinInt32, 2},
		{math.MinInt32, math.MinInt32 + 2, 4},
		{-1, -1, 0x3fffffffffffffff},
		{-1, 0, 0x6aaaaaaaaaaaaaaa},
		{0, -1, 0x9555555555555555},
		{0, 0, 0xc000000000000000},
		{math.MaxInt32, math.MaxInt32, math.MaxUint64},
	} {
		location := notes.Location{Latitude: test.latitude, Longitude: test.longitude}
		if got := zorder.Of(location); got != test.want {
			t.Errorf("Of(%v) is %#x, want %#x", location, got, test.want)
		}
		if got := zorder.Location(test.want); got != location {
			t.Errorf("Location(%#x) is %v, want %v", test.want, got, location)
		}
	}
}

// grid returns all locations of a small square, in Z-order. The origin is in its middle, where all bits change.
func grid() []notes.Location {
	const side = 16
	var locations []notes.Location
	for latitude := range int32(side) {
		for longitude := range int32(side) {
			locations = append(locations, notes.Location{Latitude: latitude - side/2, Longitude: longitude - side/2})
		}
	}
	slices.SortFunc(locations, func(a, b notes.Location) int {
		if zorder.Of(a) < zorder.Of(b) {
			return -1
		}
		return 1
	})
	return locations
}

// FuzzBox compares walks through a rectangle on a grid with a look at each location of it.
func FuzzBox(f *testing.F) {
	f.Add(int8(-3), int8(-5), int8(4), int8(2), int8(0), int8(0), uint8(3))
	f.Add(int8(-3), int8(5), int8(4), int8(-2), int8(1), int8(-7), uint8(1))
	f.Add(int8(3), int8(5), int8(-4), int8(6), int8(1), int8(-7), uint8(20))
	f.Add(int8(-128), int8(-128), int8(127), int8(127), int8(-8), int8(-8), uint8(255))
	locations := grid()
	f.Fuzz(func(t *testing.T, south, west, north, east, latitude, longitude int8, count uint8) {
		rectangle := notes.Rectangle{South: int32(south), West: int32(west), North: int32(north), East: int32(east)}
		from := zorder.Of(notes.Location{Latitude: int32(latitude), Longitude: int32(longitude)})
		seen := make(map[notes.Location]int)
		for _, box := range zorder.Boxes(rectangle) {
			ranges := box.Ranges(from, int(count)+1)
			if len(ranges) > int(count)+1 || !slices.IsSortedFunc(ranges, func(a, b zorder.Range) int {
				if a.Last < b.First {
					return -1
				}
				return 1
			}) {
				t.Errorf("%v from %#x: %d ranges or fewer are %v", rectangle, from, count+1, ranges)
			}
			for _, location := range locations {
				z := zorder.Of(location)
				if box.Contains(z) {
					seen[location]++
				}
				want, found := next(locations, box, z)
				got, ok := box.Next(z)
				// The next number may be outside of the grid.
				if found && (!ok || got > want) || ok && (got < z || !box.Contains(got)) {
					t.Errorf("%v: Next(%#x) is %#x, %v, want %#x, %v", rectangle, z, got, ok, want, found)
				}
				inRange := slices.ContainsFunc(ranges, func(r zorder.Range) bool { return r.First <= z && z <= r.Last })
				if inRange && z < from || !inRange && z >= from && box.Contains(z) {
					t.Errorf("%v from %#x: %v is in a range: %v", rectangle, from, location, inRange)
				}
			}
		}
		for _, location := range locations {
			want := 0
			if rectangle.Contains(location) {
				want = 1
			}
			if seen[location] != want {
				t.Errorf("%v: %v is in %d boxes, want %d", rectangle, location, seen[location], want)
			}
		}
	})
}

// next returns the number of the first location of a list that is in a box, and whose number is at least z.
func next(locations []notes.Location, box zorder.Box, z uint64) (uint64, bool) {
	for _, location := range locations {
		if candidate := zorder.Of(location); candidate >= z && box.Contains(candidate) {
			return candidate, true
		}
	}
	return 0, false
}

// Next is exact: nothing of the box is between z and the result. The box is searched by halves.
func FuzzNextIsSmallest(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint64(3))
	f.Add(uint64(0xc000000000000000), uint64(0xffffffffffffffff), uint64(0x9555555555555555))
	f.Fuzz(func(t *testing.T, a, b, z uint64) {
		first, second := zorder.Location(a), zorder.Location(b)
		boxes := zorder.Boxes(notes.Rectangle{
			South: min(first.Latitude, second.Latitude), North: max(first.Latitude, second.Latitude),
			West: min(first.Longitude, second.Longitude), East: max(first.Longitude, second.Longitude),
		})
		box := boxes[0]
		got, ok := box.Next(z)
		want, found := smallest(box, z, 0, 64)
		if ok != found || got != want && found {
			t.Errorf("%v: Next(%#x) is %#x, %v, want %#x, %v", box, z, got, ok, want, found)
		}
	})
}

// smallest returns the smallest number of a quadrant that is in the box and at least z.
func smallest(box zorder.Box, z, first uint64, bits int) (uint64, bool) {
	last := first | (1<<bits - 1)
	a, b := zorder.Location(first), zorder.Location(last)
	low, high := zorder.Location(box.Min), zorder.Location(box.Max)
	if last < z || b.Latitude < low.Latitude || a.Latitude > high.Latitude || b.Longitude < low.Longitude || a.Longitude > high.Longitude {
		return 0, false
	}
	if bits == 0 {
		return first, true
	}
	if found, ok := smallest(box, z, first, bits-1); ok {
		return found, true
	}
	return smallest(box, z, first|1<<(bits-1), bits-1)
}

func BenchmarkNext(b *testing.B) {
	box := zorder.Boxes(notes.Rectangle{South: 10_0000000, West: 10_0000000, North: 30_0000000, East: 30_0000000})[0]
	z := box.Min
	for b.Loop() {
		z += 12345678901
		if next, ok := box.Next(z); ok {
			z = next
		} else {
			z = box.Min
		}
	}
}
