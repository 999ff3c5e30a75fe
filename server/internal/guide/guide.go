// Package guide is a spatial index of features, with lookups by point and by rectangle, and measures routes. It knows
// the messages of the contract, but no RPCs, chats or notes.
package guide

import (
	"iter"

	"github.com/tidwall/rtree"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/validate"
)

// fullCircle is 360 degrees, in E7 degrees.
const fullCircle = 2 * validate.MaxLongitude

// place is a location as a map key and a corner in the R-tree: longitude and latitude, in E7 degrees.
type place [2]int32

func placeOf(point *routeguide.Point) place {
	return place{point.GetLongitude(), point.GetLatitude()}
}

// A Guide is an immutable index of features. Its methods may be called concurrently. The features that they return
// must not be changed.
type Guide struct {
	byPlace map[place][]*routeguide.Feature
	index   rtree.RTreeGN[int32, *routeguide.Feature]
}

// New returns a guide to features, which must not be changed afterwards. It ignores features without a name: the
// contract defines them as nothing there.
func New(features []*routeguide.Feature) *Guide {
	guide := &Guide{byPlace: make(map[place][]*routeguide.Feature, len(features))}
	for _, feature := range features {
		if feature.GetName() == "" {
			continue
		}
		place := placeOf(feature.GetLocation())
		guide.byPlace[place] = append(guide.byPlace[place], feature)
		guide.index.Insert(place, place, feature)
	}
	return guide
}

// Len returns the number of features.
func (g *Guide) Len() int {
	return g.index.Len()
}

// Feature returns the feature exactly at point, the first one of several. If there is none, it returns a feature at
// point with an empty name.
func (g *Guide) Feature(point *routeguide.Point) *routeguide.Feature {
	if features := g.byPlace[placeOf(point)]; len(features) > 0 {
		return features[0]
	}
	return &routeguide.Feature{Location: point}
}

// Within returns the features in rectangle, edges included, in no particular order. The contract defines at Rectangle
// how a rectangle crosses the antimeridian.
func (g *Guide) Within(rectangle *routeguide.Rectangle) iter.Seq[*routeguide.Feature] {
	lo, hi := rectangle.GetLo(), rectangle.GetHi()
	south, north := min(lo.GetLatitude(), hi.GetLatitude()), max(lo.GetLatitude(), hi.GetLatitude())
	west, east := int64(min(lo.GetLongitude(), hi.GetLongitude())), int64(max(lo.GetLongitude(), hi.GetLongitude()))
	// The part beyond the antimeridian is shifted by a full circle. The parts do not overlap, because together they are
	// less than a full circle.
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
