// Package validate checks messages against the rules that the contract states for their fields. It knows only the
// messages.
package validate

import (
	"fmt"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
)

// Largest coordinates of a point on Earth, in E7 degrees. The smallest are their negatives.
const (
	MaxLatitude  = 90_0000000
	MaxLongitude = 180_0000000
)

// An Error is a violation of the contract by one field of a request.
type Error struct {
	// Field is the path of the field in the request, in the contract's names, such as "location.latitude".
	Field string
	// Rule is the violated rule, with the value.
	Rule string
}

func (e *Error) Error() string {
	return e.Field + ": " + e.Rule
}

// Point returns an [*Error] if point is nil or not on Earth. An empty point is valid: it is 0, 0. Field is the path of
// the point in its request, and empty if the point is the request.
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

// Rectangle returns an [*Error] if a corner of rectangle is missing, or its latitude is not on Earth. Every longitude
// is valid, because a rectangle may cross the antimeridian.
//
// Field is the path of the rectangle in its request, and empty if the rectangle is the request.
func Rectangle(field string, rectangle *routeguide.Rectangle) error {
	if err := latitude(join(field, "lo"), rectangle.GetLo()); err != nil {
		return err
	}
	return latitude(join(field, "hi"), rectangle.GetHi())
}

// Note returns an [*Error] if the location of note is missing or not on Earth.
func Note(note *routeguide.RouteNote) error {
	return Point("location", note.GetLocation())
}

// encodedSlack is the difference between the limit of an encoded note and that of its text, in bytes: room for the
// location and for unknown fields.
const encodedSlack = 1 << 10

// Length returns an [*Error] if the text of note is longer than maxText bytes, or its encoding, of size bytes, is longer
// than maxText plus 1 KiB. A maxText of 0 is no limit.
func Length(note *routeguide.RouteNote, size, maxText int) error {
	if maxText == 0 {
		return nil
	}
	if err := atMost("message", note.GetMessage(), maxText); err != nil {
		return err
	}
	if maxSize := maxText + encodedSlack; size > maxSize {
		return &Error{Field: "message", Rule: fmt.Sprintf("comes in a note of %d bytes: at most %d are allowed, unknown fields included", size, maxSize)}
	}
	return nil
}

// LeaveNote returns an [*Error] if the location of a request is missing or not on Earth, its text is longer than
// maxText bytes, or its id is longer than maxID bytes. A maxText of 0 is no limit.
func LeaveNote(request *routeguidev1.LeaveNoteRequest, maxText, maxID int) error {
	if err := Point("location", request.GetLocation()); err != nil {
		return err
	}
	if maxText > 0 {
		if err := atMost("text", request.GetText(), maxText); err != nil {
			return err
		}
	}
	return atMost("id", request.GetId(), maxID)
}

// atMost returns an [*Error] if the value of a field is longer than most bytes.
func atMost(field, value string, most int) error {
	if len(value) <= most {
		return nil
	}
	return &Error{Field: field, Rule: fmt.Sprintf("is %d bytes long: at most %d are allowed", len(value), most)}
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
