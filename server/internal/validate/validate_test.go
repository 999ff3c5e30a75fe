package validate_test

import (
	"errors"
	"math"
	"testing"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/validate"
)

func point(latitude, longitude int32) *routeguide.Point {
	return &routeguide.Point{Latitude: latitude, Longitude: longitude}
}

// field returns the field of a validation error, or "" if err is nil.
func field(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var invalid *validate.Error
	if !errors.As(err, &invalid) {
		t.Fatalf("got %T, want a *validate.Error", err)
	}
	return invalid.Field
}

func TestNoteRequiresLocationOnEarth(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		location *routeguide.Point
		blamed   string
	}{
		"an empty point is 0, 0":      {&routeguide.Point{}, ""},
		"the corners of the map":      {point(validate.MaxLatitude, -validate.MaxLongitude), ""},
		"the other corners":           {point(-validate.MaxLatitude, validate.MaxLongitude), ""},
		"no location":                 {nil, "location"},
		"north of the North Pole":     {point(validate.MaxLatitude+1, 0), "location.latitude"},
		"south of the South Pole":     {point(-validate.MaxLatitude-1, 0), "location.latitude"},
		"east of the antimeridian":    {point(0, validate.MaxLongitude+1), "location.longitude"},
		"west of the antimeridian":    {point(0, -validate.MaxLongitude-1), "location.longitude"},
		"the smallest numbers of all": {point(math.MinInt32, math.MinInt32), "location.latitude"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := field(t, validate.Note(&routeguide.RouteNote{Location: test.location})); got != test.blamed {
				t.Errorf("blames %q, want %q", got, test.blamed)
			}
		})
	}
}

func TestRectangleRequiresCornersAndAllowsAntimeridian(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lo, hi *routeguide.Point
		blamed string
	}{
		"two corners":             {point(1, 1), point(2, 2), ""},
		"across the antimeridian": {point(1, 170_0000000), point(2, 190_0000000), ""},
		"no lo":                   {nil, point(2, 2), "lo"},
		"no hi":                   {point(1, 1), nil, "hi"},
		"lo beyond a pole":        {point(-validate.MaxLatitude-1, 0), point(2, 2), "lo.latitude"},
		"hi beyond a pole":        {point(1, 1), point(validate.MaxLatitude+1, 0), "hi.latitude"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := field(t, validate.Rectangle("", &routeguide.Rectangle{Lo: test.lo, Hi: test.hi})); got != test.blamed {
				t.Errorf("blames %q, want %q", got, test.blamed)
			}
		})
	}
}

func TestLengthLimitsTextAndEncodedNote(t *testing.T) {
	t.Parallel()
	note := &routeguide.RouteNote{Message: "four"}
	for _, test := range []struct {
		size, maxText int
		wrong         bool
	}{{6, 4, false}, {4 + 1024, 4, false}, {5 + 1024, 4, true}, {6, 3, true}, {1 << 20, 0, false}} {
		if got := field(t, validate.Length(note, test.size, test.maxText)); (got == "message") != test.wrong {
			t.Errorf("%d bytes with texts up to %d: blames %q, want wrong: %v", test.size, test.maxText, got, test.wrong)
		}
	}
}
