package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/server/internal/notes"
)

// rectangles is the number of rectangles of each size.
const rectangles = 50

// findRectangles takes the time to find the locations in squares around random notes of the folder.
func (b *bench) findRectangles(ctx context.Context) (err error) {
	store, err := b.openFolder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	table := tabwriter.NewWriter(b.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "locations in %d squares of each size, each around another note: median (min, max)\n", rectangles)
	fmt.Fprintln(table, "degrees\tlocations\tms")
	for _, degrees := range []int32{1, 5, 20} {
		var took times
		var counts []float64
		for i := range rectangles {
			latitude, longitude := b.places.At(1 + b.Grow*int64(i)/rectangles)
			square := squareAround(latitude, longitude, degrees)
			count := 0
			start := time.Now()
			for _, err := range store.Locations(ctx, square, nil) {
				if err != nil {
					return err
				}
				count++
			}
			took.since(start)
			counts = append(counts, float64(count))
		}
		fmt.Fprintf(table, "%d\t%s\t%s\n", degrees, measure.Spread("%.0f", counts), took.String())
	}
	return table.Flush()
}

// squareAround returns a square of degrees around a location. It may cross the antimeridian, but no pole.
func squareAround(latitude, longitude, degrees int32) notes.Rectangle {
	const pole, antimeridian = 90_0000000, 180_0000000 // E7 degrees
	half := degrees * 1_0000000 / 2
	latitude = min(max(latitude, half-pole), pole-half)
	// wrapped returns a longitude between -180 and 180 degrees.
	wrapped := func(longitude int64) int32 {
		switch {
		case longitude < -antimeridian:
			longitude += 2 * antimeridian
		case longitude > antimeridian:
			longitude -= 2 * antimeridian
		}
		return int32(longitude)
	}
	return notes.Rectangle{
		South: latitude - half, North: latitude + half,
		West: wrapped(int64(longitude) - int64(half)), East: wrapped(int64(longitude) + int64(half)),
	}
}
