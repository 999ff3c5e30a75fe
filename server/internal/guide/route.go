package guide

import (
	"math"
	"time"

	"example.com/routeguide/gen/routeguide"
)

// EarthRadius is the mean radius of the Earth in metres: R1 = (2a+b)/3 = 6371008.7714 m of the
// GRS 80 ellipsoid (H. Moritz, Geodetic Reference System 1980, Journal of Geodesy 74, 2000).
const EarthRadius = 6371008.7714

// Distance returns the great-circle distance between two points in metres, on a sphere of
// [EarthRadius], by the haversine formula (R. W. Sinnott, Virtues of the Haversine, Sky and
// Telescope 68, 1984), which stays accurate for points that are close together.
func Distance(from, to *routeguide.Point) float64 {
	fromLatitude, toLatitude := radians(from.GetLatitude()), radians(to.GetLatitude())
	halfNorth := math.Sin((toLatitude - fromLatitude) / 2)
	halfEast := math.Sin((radians(to.GetLongitude()) - radians(from.GetLongitude())) / 2)
	haversine := halfNorth*halfNorth + math.Cos(fromLatitude)*math.Cos(toLatitude)*halfEast*halfEast
	// Rounding can take the haversine of two antipodes beyond 1, where there is no arc sine.
	return 2 * EarthRadius * math.Asin(math.Sqrt(min(1, haversine)))
}

func radians(e7 int32) float64 {
	return float64(e7) / 1e7 * math.Pi / 180
}

// A Route adds up the points of one RecordRoute. It starts when it is made, and is not safe for
// concurrent use.
type Route struct {
	guide    *Guide
	start    time.Time
	last     *routeguide.Point
	points   int64
	features int64
	metres   float64
}

// StartRoute returns a route without points that starts now.
func (g *Guide) StartRoute() *Route {
	return &Route{guide: g, start: time.Now()}
}

// Pass adds the next point of the route, which must not be changed afterwards.
func (r *Route) Pass(point *routeguide.Point) {
	if r.last != nil {
		r.metres += Distance(r.last, point)
	}
	r.last = point
	r.points++
	r.features += int64(len(r.guide.at[placeOf(point)]))
}

// Summary returns what there is to say about the route if it ends now. A number that does not fit
// the contract's 32 bits is reported as the largest that does.
func (r *Route) Summary() *routeguide.RouteSummary {
	// time.Since goes by the monotonic clock, so a change of the wall clock does not count.
	return &routeguide.RouteSummary{
		PointCount:   int32(min(r.points, math.MaxInt32)),
		FeatureCount: int32(min(r.features, math.MaxInt32)),
		Distance:     int32(min(r.metres, math.MaxInt32)),
		ElapsedTime:  int32(min(time.Since(r.start)/time.Second, math.MaxInt32)),
	}
}
