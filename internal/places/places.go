// Package places generates what benchmarks leave: locations, uniformly at random or clustered as people are, and texts.
// The same seed gives the same ones. It knows nothing of notes.
package places

import (
	"math"
	"math/rand/v2"
)

const (
	cities = 20
	// cityDegrees is the standard deviation of the locations of a city, in degrees.
	cityDegrees = 0.1
	// defaultClustered is the number of clustered locations unless Count says otherwise.
	defaultClustered = 1_000_000

	maxLatitude  = 90_0000000  // E7 degrees
	maxLongitude = 180_0000000 // E7 degrees
)

// A Generator returns a location for each number. The zero value generates new locations, uniformly at random. Its methods may be
// called concurrently.
type Generator struct {
	Seed uint64
	// Count is the number of locations; 0 is a new one for each number, or a million if they are clustered.
	Count int
	// Clustered puts the locations into 20 cities, and chooses among them by Zipf's law: the location of rank k is 1/k as
	// frequent as the first.
	Clustered bool
}

// At returns the location of a number, in E7 degrees.
func (g Generator) At(number int64) (latitude, longitude int32) {
	random := g.random(uint64(number))
	if g.Clustered {
		count := g.Count
		if count == 0 {
			count = defaultClustered
		}
		// The power of a uniform exponent has the density 1/k, which is Zipf's law with the exponent 1.
		return g.inCity(int64(math.Pow(float64(count)+1, random.Float64())) - 1)
	}
	if g.Count > 0 {
		random = g.random(random.Uint64N(uint64(g.Count)))
	}
	return within(maxLatitude, (2*random.Float64()-1)*maxLatitude), within(maxLongitude, (2*random.Float64()-1)*maxLongitude)
}

// inCity returns the location of a rank.
func (g Generator) inCity(rank int64) (latitude, longitude int32) {
	center := g.random(1<<63 | uint64(rank%cities))
	offset := g.random(uint64(rank))
	north := (2*center.Float64()-1)*60 + offset.NormFloat64()*cityDegrees
	east := (2*center.Float64()-1)*180 + offset.NormFloat64()*cityDegrees
	return within(maxLatitude, north*1e7), within(maxLongitude, east*1e7)
}

func (g Generator) random(stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(g.Seed, stream)) //nolint:gosec // A seed must give the same locations again.
}

// within returns a coordinate in E7 degrees that is on Earth.
func within(limit int32, coordinate float64) int32 {
	return int32(min(max(coordinate, -float64(limit)), float64(limit)))
}
