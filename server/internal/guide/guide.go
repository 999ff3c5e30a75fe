// Package guide knows what is where: the features of the map, the rectangles that contain them,
// and the length of routes. It knows the messages of the contract, and nothing of RPCs, chats or
// notes.
package guide

import (
	"iter"

	"github.com/tidwall/rtree"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/validate"
)

// fullCircle is once around the Earth, in E7 degrees.
const fullCircle = 2 * validate.MaxLongitude

// place is a location as a map key and a corner of the index: longitude and latitude, in E7
// degrees.
type place [2]int32

func placeOf(point *routeguide.Point) place {
	return place{point.GetLongitude(), point.GetLatitude()}
}

// A Guide answers where features are. It never changes once it is made, so all of its methods may
// be called concurrently, and the features it returns must not be changed.
type Guide struct {
	at    map[place][]*routeguide.Feature
	index rtree.RTreeGN[int32, *routeguide.Feature]
}

// New returns a guide to features, which must not be changed afterwards. Features without a name
// are left out: in the contract's words, nothing is there.
func New(features []*routeguide.Feature) *Guide {
	guide := &Guide{at: make(map[place][]*routeguide.Feature, len(features))}
	for _, feature := range features {
		if feature.GetName() == "" {
			continue
		}
		place := placeOf(feature.GetLocation())
		guide.at[place] = append(guide.at[place], feature)
		guide.index.Insert(place, place, feature)
	}
	return guide
}

// Len returns the number of features.
func (g *Guide) Len() int {
	return g.index.Len()
}

// Feature returns the feature exactly at point, the first one if there are several. If there is
// none, it returns a feature there that has no name.
func (g *Guide) Feature(point *routeguide.Point) *routeguide.Feature {
	if features := g.at[placeOf(point)]; len(features) > 0 {
		return features[0]
	}
	return &routeguide.Feature{Location: point}
}

// Within returns the features in rectangle, its edges included, in no particular order. A
// rectangle crosses the antimeridian in the way that the contract states at Rectangle.
func (g *Guide) Within(rectangle *routeguide.Rectangle) iter.Seq[*routeguide.Feature] {
	lo, hi := rectangle.GetLo(), rectangle.GetHi()
	south, north := min(lo.GetLatitude(), hi.GetLatitude()), max(lo.GetLatitude(), hi.GetLatitude())
	west, east := int64(min(lo.GetLongitude(), hi.GetLongitude())), int64(max(lo.GetLongitude(), hi.GetLongitude()))
	// What reaches beyond the antimeridian lies a full circle further on. The parts do not overlap,
	// since together they are less than a full circle.
	shifts := []int64{0, -fullCircle, fullCircle}
	if east-west >= fullCircle {
		west, east, shifts = -validate.MaxLongitude, validate.MaxLongitude, shifts[:1]
	}
	return func(yield func(*routeguide.Feature) bool) {
		for _, shift := range shifts {
			from, to := max(west+shift, -validate.MaxLongitude), min(east+shift, validate.MaxLongitude)
			if from > to {
				continue
			}
			more := true
			g.index.Search(place{int32(from), south}, place{int32(to), north},
				func(_, _ [2]int32, feature *routeguide.Feature) bool {
					more = yield(feature)
					return more
				})
			if !more {
				return
			}
		}
	}
}
