// Package zorder maps locations to numbers in Z-order (Morton order), which keeps locations that are near each
// other on the map near each other in a sorted set of keys: the bits of both coordinates, as unsigned offsets from
// the smallest int32, are interleaved, that of the latitude first. It computes how to skip, in such a set, what
// lies outside of a rectangle: BIGMIN of H. Tropf and H. Herzog, Multidimensional Range Search in Dynamically
// Balanced Trees, Angewandte Informatik 2/1981.
package zorder

import (
	"example.com/routeguide/server/internal/notes"
)

// Of returns the number of a location.
func Of(location notes.Location) uint64 {
	return spread(unsigned(location.Latitude))<<1 | spread(unsigned(location.Longitude))
}

// Location returns the location of a number.
func Location(z uint64) notes.Location {
	return notes.Location{Latitude: signed(squeeze(z >> 1)), Longitude: signed(squeeze(z))}
}

// signBit is the difference between an int32 and its offset from the smallest one.
const signBit = 1 << 31

func unsigned(coordinate int32) uint32 { return uint32(coordinate) ^ signBit }

func signed(offset uint32) int32 { return int32(offset ^ signBit) }

// The bits of one coordinate in a number: those of the longitude, and those of the latitude.
const (
	evenBits uint64 = 0x5555555555555555
	oddBits         = evenBits << 1
)

// spread returns the bits of x at the even places.
func spread(x uint32) uint64 {
	z := uint64(x)
	z = (z | z<<16) & 0x0000ffff0000ffff
	z = (z | z<<8) & 0x00ff00ff00ff00ff
	z = (z | z<<4) & 0x0f0f0f0f0f0f0f0f
	z = (z | z<<2) & 0x3333333333333333
	return (z | z<<1) & evenBits
}

// squeeze is the inverse of spread. It ignores the odd places.
func squeeze(z uint64) uint32 {
	z &= evenBits
	z = (z | z>>1) & 0x3333333333333333
	z = (z | z>>2) & 0x0f0f0f0f0f0f0f0f
	z = (z | z>>4) & 0x00ff00ff00ff00ff
	z = (z | z>>8) & 0x0000ffff0000ffff
	return uint32(z | z>>16)
}

// A Box is a rectangle that does not cross the antimeridian, and is not empty: its numbers are between Min, that
// of the southwest corner, and Max, that of the northeast corner.
type Box struct {
	Min, Max uint64
}

// Boxes returns the parts of a rectangle: none if it is empty, and two if it crosses the antimeridian, the
// western one, which lies east on the map, first.
func Boxes(r notes.Rectangle) []Box {
	switch {
	case r.South > r.North:
		return nil
	case r.West > r.East:
		return []Box{
			box(notes.Rectangle{South: r.South, West: r.West, North: r.North, East: notes.World.East}),
			box(notes.Rectangle{South: r.South, West: notes.World.West, North: r.North, East: r.East}),
		}
	default:
		return []Box{box(r)}
	}
}

func box(r notes.Rectangle) Box {
	return Box{
		Min: Of(notes.Location{Latitude: r.South, Longitude: r.West}),
		Max: Of(notes.Location{Latitude: r.North, Longitude: r.East}),
	}
}

// A Part is the numbers of a box from a number on.
type Part struct {
	Box

	From uint64
}

// From returns what is left of the parts of a rectangle after a location or, if that is nil, all of them.
func From(r notes.Rectangle, after *notes.Location) []Part {
	boxes := Boxes(r)
	parts := make([]Part, len(boxes))
	for i, box := range boxes {
		parts[i] = Part{box, box.Min}
	}
	if after == nil {
		return parts
	}
	last := Of(*after)
	for i, part := range parts {
		// The second part of a rectangle that crosses the antimeridian is west of it.
		if i == len(parts)-1 || after.Longitude >= r.West {
			if last >= part.Max {
				return parts[i+1:]
			}
			parts[i].From = last + 1
			return parts[i:]
		}
	}
	return parts
}

// Contains returns whether the location of a number is in the box.
func (b Box) Contains(z uint64) bool {
	// A coordinate keeps its order when it is spread.
	return z&oddBits >= b.Min&oddBits && z&oddBits <= b.Max&oddBits &&
		z&evenBits >= b.Min&evenBits && z&evenBits <= b.Max&evenBits
}

// Next returns the smallest number in the box that is at least z. Its second result is false if there is none.
func (b Box) Next(z uint64) (uint64, bool) {
	if b.Contains(z) {
		return z, true
	}
	next, found := uint64(0), false
	low, high := b.Min, b.Max
	for bit := uint64(1) << 63; bit != 0; bit >>= 1 {
		// Below are the lower bits of the same coordinate.
		below := (bit - 1) & evenBits
		if bit&oddBits != 0 {
			below = (bit - 1) & oddBits
		}
		switch {
		case z&bit == 0 && low&bit == 0 && high&bit != 0:
			// The box extends into both halves. The first number of the upper half is next unless one of the lower
			// half is.
			next, found = low&^below|bit, true
			high = high&^bit | below
		case z&bit == 0 && low&bit != 0:
			return low, true // All of the box is beyond z.
		case z&bit != 0 && high&bit == 0:
			return next, found // All of the box is before z.
		case z&bit != 0 && low&bit == 0:
			low = low&^below | bit
		}
	}
	return z, true
}

// A Range is the numbers from First to Last.
type Range struct {
	First, Last uint64
}

// Ranges returns at most count ranges, which is at least 1, in ascending order. They contain all numbers of the box
// from a number on, and the fewer others, the more ranges there may be.
func (b Box) Ranges(from uint64, count int) []Range {
	from, ok := b.Next(from)
	if !ok {
		return nil
	}
	// Split the quadrants that the box covers in part, level by level, until there are too many.
	quadrants := []quadrant{{0, 64}}
	for {
		var finer []quadrant
		split := false
		for _, q := range quadrants {
			if q.bits == 0 || b.covers(q) {
				finer = append(finer, q)
				continue
			}
			split = true
			for _, half := range q.halves() {
				if next, ok := b.Next(max(half.first, from)); ok && next <= half.last() {
					finer = append(finer, half)
				}
			}
		}
		if !split {
			break
		}
		if merged := merge(finer, from, b.Max); len(merged) > count {
			break
		}
		quadrants = finer
	}
	return merge(quadrants, from, b.Max)
}

// A quadrant is the numbers with a common prefix: all but the lowest bits.
type quadrant struct {
	first uint64
	bits  int
}

func (q quadrant) last() uint64 {
	return q.first | (1<<q.bits - 1)
}

func (q quadrant) halves() [2]quadrant {
	return [2]quadrant{{q.first, q.bits - 1}, {q.first | 1<<(q.bits-1), q.bits - 1}}
}

// covers returns whether all of a quadrant is in the box.
func (b Box) covers(q quadrant) bool {
	return b.Contains(q.first) && b.Contains(q.last())
}

// merge returns the ranges of quadrants, within limits, with neighbours joined.
func merge(quadrants []quadrant, from, through uint64) []Range {
	var ranges []Range
	for _, q := range quadrants {
		next := Range{max(q.first, from), min(q.last(), through)}
		if last := len(ranges) - 1; last >= 0 && ranges[last].Last+1 == next.First {
			ranges[last].Last = next.Last
		} else {
			ranges = append(ranges, next)
		}
	}
	return ranges
}
