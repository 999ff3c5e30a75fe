package guide

import (
	"math"
	"time"

	"example.com/routeguide/gen/routeguide"
)

// EarthRadius is the mean radius of the Earth in metres: R1 = (2a+b)/3 of the GRS 80 ellipsoid (H. Moritz, Geodetic
// Reference System 1980, Journal of Geodesy 74, 2000).
const EarthRadius = 6371008.7714

// Distance returns the great-circle distance between two points in metres, on a sphere of [EarthRadius], by the
// haversine formula (R. W. Sinnott, Virtues of the Haversine, Sky and Telescope 68, 1984), which is accurate also for
// small distances.
func Distance(from, to *routeguide.Point) float64 {
	fromLatitude, toLatitude := radians(from.GetLatitude()), radians(to.GetLatitude())
	halfNorth := math.Sin((toLatitude - fromLatitude) / 2)
	halfEast := math.Sin((radians(to.GetLongitude()) - radians(from.GetLongitude())) / 2)
	haversine := halfNorth*halfNorth + math.Cos(fromLatitude)*math.Cos(toLatitude)*halfEast*halfEast
	// Rounding can make the haversine of antipodes larger than 1, where the arc sine is NaN.
	return 2 * EarthRadius * math.Asin(math.Sqrt(min(1, haversine)))
}

func radians(e7 int32) float64 {
	return float64(e7) / 1e7 * math.Pi / 180
}

// A Route accumulates the points of one RecordRoute. It is not safe for concurrent use.
type Route struct {
	guide    *Guide
	start    time.Time
	last     *routeguide.Point
	points   int64
	features int64
	metres   float64
}

// StartRoute returns an empty route that starts now.
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
	r.features += int64(len(r.guide.byPlace[placeOf(point)]))
}

// Summary returns the summary of the route up to now. Values are clamped to 32 bits.
func (r *Route) Summary() *routeguide.RouteSummary {
	// time.Since uses the monotonic clock, as the contract promises.
	return &routeguide.RouteSummary{
		PointCount:   int32(min(r.points, math.MaxInt32)),
		FeatureCount: int32(min(r.features, math.MaxInt32)),
		Distance:     int32(min(r.metres, math.MaxInt32)),
		ElapsedTime:  int32(min(time.Since(r.start)/time.Second, math.MaxInt32)),
	}
}
