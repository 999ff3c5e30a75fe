package live

import (
	"math"
	"math/rand/v2"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

// A grid finds the followers whose rectangles contain a location, each once, as they come and go.
func TestGrid(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	// Coordinates are close together or far apart, and often the same.
	coordinate := func(most int32) int32 {
		switch random.IntN(4) {
		case 0:
			return random.Int32N(20) - 10
		case 1:
			return []int32{-most, most, math.MinInt32, math.MaxInt32}[random.IntN(4)]
		default:
			return random.Int32N(2*(most/2)) - most/2
		}
	}
	location := func() notes.Location {
		return notes.Location{Latitude: coordinate(90_0000000), Longitude: coordinate(180_0000000)}
	}
	var grid grid
	var followers []*follower
	for round := range 20_000 {
		if random.IntN(100) < 50+10*(round/5_000%2*-2+1) { // More come than go, and then more go.
			a, b := location(), location()
			f := &follower{area: &area{rectangle: notes.Rectangle{
				South: min(a.Latitude, b.Latitude), North: max(a.Latitude, b.Latitude), West: a.Longitude, East: b.Longitude,
			}}}
			followers = append(followers, f)
			grid.add(f)
		} else if len(followers) > 0 {
			i, last := random.IntN(len(followers)), len(followers)-1
			grid.remove(followers[i])
			followers[i] = followers[last]
			followers = followers[:last]
		}
		if round%20 > 0 {
			continue
		}
		at := location()
		if len(followers) > 0 && random.IntN(2) == 0 {
			r := followers[random.IntN(len(followers))].area.rectangle
			at = notes.Location{Latitude: []int32{r.South, r.North}[random.IntN(2)], Longitude: []int32{r.West, r.East}[random.IntN(2)]}
		}
		found := make(map[*follower]int)
		grid.find(at, func(f *follower) { found[f]++ })
		for _, f := range followers {
			want := 0
			if f.area.rectangle.Contains(at) {
				want = 1
			}
			if found[f] != want {
				t.Fatalf("%v is in %v: found %d times, want %d", at, f.area.rectangle, found[f], want)
			}
			delete(found, f)
		}
		if len(found) > 0 {
			t.Fatalf("found %d followers that have gone", len(found))
		}
	}
	for _, f := range followers {
		grid.remove(f)
	}
	if len(grid.cells) > 0 || grid.levels != [33]int{} {
		t.Errorf("an empty grid has the cells %v and the levels %v", grid.cells, grid.levels)
	}
}

// A rectangle is in a few cells, whatever its size and place, so that neither large nor small ones cost much.
func TestGridCells(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		size := uint32(1) << random.IntN(32)
		var b box
		b.South, b.West = int32(random.Uint32()), int32(random.Uint32())
		b.North = int32(min(int64(b.South)+int64(random.Uint32N(size)), math.MaxInt32))
		b.East = int32(min(int64(b.West)+int64(random.Uint32N(size)), math.MaxInt32))
		cells := b.cells()
		if len(cells) == 0 || len(cells) > 4 {
			t.Fatalf("%+v is in %d cells", b, len(cells))
		}
		longest := max(int64(b.North)-int64(b.South), int64(b.East)-int64(b.West))
		if side := int64(1) << cells[0].level; side <= longest || side > max(2*longest, 1) {
			t.Fatalf("%+v is in cells of %d", b, side)
		}
	}
}
