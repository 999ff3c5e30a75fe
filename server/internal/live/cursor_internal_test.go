package live

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
)

func FuzzCursor(f *testing.F) {
	for _, c := range []cursor{
		{},
		{time: 1 << 40, marks: []mark{{5, 7}}},
		{time: -1, marks: make([]mark, 64), snapshot: &notes.Location{Latitude: -5, Longitude: 900}},
	} {
		encoded := c.append(nil, 1, 2)
		parsed, err := parseCursor(encoded, 1, 2)
		if err != nil || !reflect.DeepEqual(parsed, c) {
			f.Errorf("%+v is parsed as %+v, %v", c, parsed, err)
		}
		if _, err := parseCursor(encoded, 1, 3); !errors.Is(err, errOtherFilter) {
			f.Errorf("with another filter: got %v", err)
		}
		if _, err := parseCursor(encoded, 3, 2); !errors.Is(err, errOtherStore) {
			f.Errorf("with another lineage: got %v", err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		parsed, err := parseCursor(encoded, 1, 2)
		if err == nil && !bytes.Equal(parsed.append(nil, 1, 2), encoded) {
			t.Errorf("%x is parsed, and encoded as %x", encoded, parsed.append(nil, 1, 2))
		}
	})
}

// A rectangle has the points that ListFeatures finds in it.
func FuzzRectangle(f *testing.F) {
	const most = validate.MaxLongitude
	for _, seed := range [][6]int32{
		{0, 0, 10, 10, 5, 5},
		{0, 1700000000, 10, 1900000000, 5, -1750000000},
		{0, -1900000000, 10, -1700000000, 5, 1750000000},
		{0, -1900000000, 10, -1850000000, 5, 1720000000},
		{0, 1850000000, 10, 1900000000, 5, -1750000000},
		{0, 1700000000, 10, most, 5, -most},
		{0, -most, 10, -1700000000, 5, most},
		{0, -most, 10, most, 5, 0},
		{0, most, 10, most, 5, -most},
		{0, -2100000000, 10, 2100000000, 5, 0},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4], seed[5])
	}
	f.Fuzz(func(t *testing.T, lat1, lng1, lat2, lng2, latitude, longitude int32) {
		point := &routeguide.Point{Latitude: latitude, Longitude: longitude}
		rectangle := &routeguide.Rectangle{Lo: &routeguide.Point{Latitude: lat1, Longitude: lng1}, Hi: &routeguide.Point{Latitude: lat2, Longitude: lng2}}
		if validate.Point("", point) != nil || validate.Rectangle("", rectangle) != nil {
			return
		}
		want := false
		for range guide.New([]*routeguide.Feature{{Name: "here", Location: point}}).Within(rectangle) {
			want = true
		}
		if got := Rectangle(rectangle).Contains(notes.Location{Latitude: latitude, Longitude: longitude}); got != want {
			t.Errorf("%v in %v is %v: got %v, want %v", point, rectangle, Rectangle(rectangle), got, want)
		}
	})
}
