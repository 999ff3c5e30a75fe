package live

import (
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
)

// fullCircle is 360 degrees, in E7 degrees.
const fullCircle = 2 * validate.MaxLongitude

// Rectangle returns a valid rectangle of the contract, which defines at Rectangle how one crosses the antimeridian.
func Rectangle(rectangle *routeguide.Rectangle) notes.Rectangle {
	lo, hi := rectangle.GetLo(), rectangle.GetHi()
	west, east := int64(min(lo.GetLongitude(), hi.GetLongitude())), int64(max(lo.GetLongitude(), hi.GetLongitude()))
	if east-west >= fullCircle {
		west, east = -validate.MaxLongitude, validate.MaxLongitude
	} else {
		// The antimeridian is 180 degrees, and -180: whoever includes one includes the other.
		if west <= -validate.MaxLongitude {
			west += fullCircle
		} else if west > validate.MaxLongitude {
			west -= fullCircle
		}
		if east >= validate.MaxLongitude {
			east -= fullCircle
		} else if east < -validate.MaxLongitude {
			east += fullCircle
		}
	}
	return notes.Rectangle{
		South: min(lo.GetLatitude(), hi.GetLatitude()),
		North: max(lo.GetLatitude(), hi.GetLatitude()),
		West:  int32(west),
		East:  int32(east),
	}
}
