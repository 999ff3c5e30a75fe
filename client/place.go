package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"example.com/routeguide/gen/routeguide"
)

// place is a location in E7 degrees, the unit of the contract. Flags and output have degrees.
type place struct{ latitude, longitude int32 }

const (
	e7           = 1e7 // E7 degrees in a degree
	maxLatitude  = 90  // degrees
	maxLongitude = 180 // degrees
)

var errPlace = errors.New("want latitude and longitude in degrees, such as 40.7127,-74.0059")

// Decode implements [kong.MapperValue]. Unlike kong's own mappers, it takes a value that begins with a hyphen, as places in the
// south do.
func (p *place) Decode(ctx *kong.DecodeContext) error {
	return p.parse(ctx.Scan.Pop().String())
}

// parse sets p to degrees, rounded to E7 degrees.
func (p *place) parse(degrees string) error {
	latitude, longitude, ok := strings.Cut(degrees, ",")
	if !ok {
		return errPlace
	}
	var err error
	if p.latitude, err = parseDegrees(latitude, "latitude", maxLatitude); err != nil {
		return err
	}
	p.longitude, err = parseDegrees(longitude, "longitude", maxLongitude)
	return err
}

// parseDegrees returns degrees between -most and most as E7 degrees.
func parseDegrees(text, name string, most float64) (int32, error) {
	degrees, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(degrees) {
		return 0, errPlace
	}
	if math.Abs(degrees) > most {
		return 0, fmt.Errorf("%s %g is not between %g and %g", name, degrees, -most, most)
	}
	return int32(math.Round(degrees * e7)), nil
}

func (p *place) point() *routeguide.Point {
	return &routeguide.Point{Latitude: p.latitude, Longitude: p.longitude}
}

func (p *place) String() string {
	return strconv.FormatFloat(float64(p.latitude)/e7, 'f', -1, 64) + "," + strconv.FormatFloat(float64(p.longitude)/e7, 'f', -1, 64)
}

// area is a rectangle with two opposite corners.
type area struct{ lo, hi place }

var errArea = errors.New("want two opposite corners in degrees, such as 40.7,-74.1,40.8,-73.9")

// Decode implements [kong.MapperValue], like that of place.
func (a *area) Decode(ctx *kong.DecodeContext) error {
	return a.parse(ctx.Scan.Pop().String())
}

// parse sets a to degrees: LAT,LNG,LAT,LNG.
func (a *area) parse(degrees string) error {
	values := strings.Split(degrees, ",")
	if len(values) != 4 { //nolint:mnd // Two corners with two values.
		return errArea
	}
	for i, corner := range []*place{&a.lo, &a.hi} {
		if err := corner.parse(strings.Join(values[2*i:2*i+2], ",")); errors.Is(err, errPlace) {
			return errArea
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (a *area) rectangle() *routeguide.Rectangle {
	return &routeguide.Rectangle{Lo: a.lo.point(), Hi: a.hi.point()}
}
