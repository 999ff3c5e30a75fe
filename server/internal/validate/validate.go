// Package validate holds the rules that the contract states for the fields of its messages, and
// the error that says which field breaks which rule. It knows the messages and nothing else.
package validate

import (
	"fmt"

	"example.com/routeguide/gen/routeguide"
)

// The coordinates of a point on Earth lie between these bounds and their negatives, in E7
// degrees.
const (
	MaxLatitude  = 90_0000000
	MaxLongitude = 180_0000000
)

// An Error says that a field of a request breaks a rule of the contract.
type Error struct {
	// Field is the path of the field from the request message on, in the contract's names, such
	// as "location.latitude".
	Field string
	// Rule says what is expected of the field, and what it got.
	Rule string
}

func (e *Error) Error() string {
	return e.Field + ": " + e.Rule
}

// Point returns an [*Error] if point is absent or not on Earth. A point without any field set is
// present, and lies at 0, 0. Field is the path of the point in its request; it is empty if the
// point is the request.
func Point(field string, point *routeguide.Point) error {
	if err := latitude(field, point); err != nil {
		return err
	}
	if longitude := point.GetLongitude(); longitude < -MaxLongitude || longitude > MaxLongitude {
		return &Error{
			Field: join(field, "longitude"),
			Rule:  fmt.Sprintf("%d is not between %d and %d (degrees times 10^7)", longitude, -MaxLongitude, MaxLongitude),
		}
	}
	return nil
}

// Rectangle returns an [*Error] if a corner of rectangle is absent, or its latitude is not on
// Earth. Any longitude will do: that is how a rectangle crosses the antimeridian.
func Rectangle(rectangle *routeguide.Rectangle) error {
	if err := latitude("lo", rectangle.GetLo()); err != nil {
		return err
	}
	return latitude("hi", rectangle.GetHi())
}

// Note returns an [*Error] if note has no location, or one that is not on Earth.
func Note(note *routeguide.RouteNote) error {
	return Point("location", note.GetLocation())
}

// encodedSlack is how much longer an encoded note may be than its text may, in bytes: for its location, and for fields
// that this contract does not know.
const encodedSlack = 1 << 10

// Length returns an [*Error] if the text of note is longer than maxText bytes, or all of it, which is size bytes long as
// it came, longer than that and 1 KiB. A maxText of 0 is no bound.
func Length(note *routeguide.RouteNote, size, maxText int) error {
	if maxText == 0 {
		return nil
	}
	if length := len(note.GetMessage()); length > maxText {
		return &Error{Field: "message", Rule: fmt.Sprintf("is %d bytes long: at most %d are allowed", length, maxText)}
	}
	if maxSize := maxText + encodedSlack; size > maxSize {
		return &Error{Field: "message", Rule: fmt.Sprintf("comes in a note of %d bytes: at most %d are allowed, unknown fields included", size, maxSize)}
	}
	return nil
}

func latitude(field string, point *routeguide.Point) error {
	if point == nil {
		return &Error{Field: field, Rule: "must be set (an empty Point is latitude 0, longitude 0)"}
	}
	if latitude := point.GetLatitude(); latitude < -MaxLatitude || latitude > MaxLatitude {
		return &Error{
			Field: join(field, "latitude"),
			Rule:  fmt.Sprintf("%d is not between %d and %d (degrees times 10^7)", latitude, -MaxLatitude, MaxLatitude),
		}
	}
	return nil
}

func join(parent, field string) string {
	if parent == "" {
		return field
	}
	return parent + "." + field
}
