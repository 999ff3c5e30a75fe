package live

import (
	"math/bits"
	"slices"

	"example.com/routeguide/server/internal/notes"
)

// grid finds the followers whose rectangles contain a location. It is a hierarchical grid: a rectangle is in the cells of the level
// whose cells are longer than its longer side, and up to twice as long, so each part of it is in four cells at most, and a location is in one
// cell of each level that is in use. Long and narrow rectangles share few large cells, all of whose boxes are looked at. The zero value is empty.
type grid struct {
	cells  map[cell][]box
	levels [33]int // boxes by level, once for each cell
}

// cell is a square of a level, whose sides are 2^level E7 degrees. Its column and row count from the south-western corner of int32.
type cell struct {
	column, row uint32
	level       int
}

// box is the part of a follower's rectangle that does not cross the antimeridian. Bounds and pointer lie together: most of the cost of a
// search is memory access.
type box struct {
	notes.Rectangle

	follower *follower
}

// boxesOf returns the parts of a follower's rectangle.
func boxesOf(f *follower) []box {
	r := f.area.rectangle
	if r.West <= r.East {
		return []box{{r, f}}
	}
	western, eastern := r, r
	western.West, eastern.East = notes.World.West, notes.World.East
	return []box{{western, f}, {eastern, f}}
}

// unsigned maps a coordinate to an unsigned one, in the same order.
func unsigned(coordinate int32) uint32 { return uint32(coordinate) ^ 1<<31 }

// cellAt returns the cell of a level at a location.
func cellAt(level int, latitude, longitude int32) cell {
	return cell{unsigned(longitude) >> level, unsigned(latitude) >> level, level}
}

// cells returns the cells of a box, four at most.
func (b *box) cells() []cell {
	size := max(unsigned(b.North)-unsigned(b.South), unsigned(b.East)-unsigned(b.West))
	level := bits.Len32(size)
	first, last := cellAt(level, b.South, b.West), cellAt(level, b.North, b.East)
	var cells []cell
	for column := first.column; ; column++ {
		for row := first.row; ; row++ {
			cells = append(cells, cell{column, row, level})
			if row == last.row {
				break
			}
		}
		if column == last.column {
			return cells
		}
	}
}

// add adds a follower of a rectangle.
func (g *grid) add(f *follower) {
	if g.cells == nil {
		g.cells = make(map[cell][]box)
	}
	for _, box := range boxesOf(f) {
		for _, cell := range box.cells() {
			g.cells[cell] = append(g.cells[cell], box)
			g.levels[cell.level]++
		}
	}
}

// remove is the inverse of add.
func (g *grid) remove(f *follower) {
	for _, removed := range boxesOf(f) {
		for _, cell := range removed.cells() {
			boxes := g.cells[cell]
			i := slices.Index(boxes, removed)
			last := len(boxes) - 1
			boxes[i], boxes[last] = boxes[last], box{}
			if g.levels[cell.level]--; last == 0 {
				delete(g.cells, cell)
			} else {
				g.cells[cell] = boxes[:last]
			}
		}
	}
}

// find calls found for each follower whose rectangle contains a location, once.
func (g *grid) find(location notes.Location, found func(f *follower)) {
	for level, count := range g.levels {
		if count == 0 {
			continue
		}
		boxes := g.cells[cellAt(level, location.Latitude, location.Longitude)]
		for i := range boxes {
			if boxes[i].Contains(location) {
				found(boxes[i].follower)
			}
		}
	}
}
