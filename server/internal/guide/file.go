package guide

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/textfile"
	"example.com/routeguide/server/internal/strictjson"
	"example.com/routeguide/server/internal/validate"
)

//go:generate go run ./geonames -out features.json

// embedded is places in New Jersey and around New York, from the GeoNames gazetteer
// (https://www.geonames.org), licensed under CC BY 4.0, and one place of the gRPC tutorials. The
// program in ./geonames writes it.
//
//go:embed features.json
var embedded []byte

// Default returns the features that come with the server.
func Default() ([]*routeguide.Feature, error) {
	return Parse(embedded)
}

// Parse reads features in the file formats of the gRPC tutorials: a JSON array of objects like
// {"location": {"latitude": 1, "longitude": 2}, "name": "..."}, with coordinates in E7 degrees, or an object that has
// that array as its member "feature". A coordinate that is left out is 0, and an empty name is allowed and says that
// nothing is there. A byte order mark is skipped. An error names the line that is wrong, and the entry, counted from 1.
func Parse(file []byte) ([]*routeguide.Feature, error) {
	text := bytes.TrimPrefix(file, []byte(textfile.BOM))
	entries, err := parseEntries(text)
	if err != nil {
		line, err := lineOf(text, err)
		return nil, fmt.Errorf("line %d: %w", line, err)
	}
	features := make([]*routeguide.Feature, len(entries))
	for i, entry := range entries {
		if features[i], err = parseFeature(entry); err != nil {
			line, err := lineOf(text, err)
			return nil, fmt.Errorf("entry %d (line %d): %w", i+1, line, err)
		}
	}
	return features, nil
}

// parseEntries returns the elements of the array, in either form of file.
func parseEntries(text []byte) ([]strictjson.Value, error) {
	value, err := strictjson.Parse(text)
	if err != nil {
		return nil, err
	}
	if !value.IsObject() {
		return value.Array()
	}
	members, err := value.Object("feature")
	if err != nil {
		return nil, err
	}
	list, there := members["feature"]
	if !there {
		return nil, value.Errorf(`want an array of features like {"location": {"latitude": 1, "longitude": 2}, "name": "..."}, or {"feature": [...]}`)
	}
	return list.Array()
}

func parseFeature(entry strictjson.Value) (*routeguide.Feature, error) {
	members, err := entry.Object("location", "name")
	if err != nil {
		return nil, err
	}
	location, there := members["location"]
	if !there {
		return nil, entry.Errorf("location is missing")
	}
	name, there := members["name"]
	if !there {
		return nil, entry.Errorf(`name is missing (it may be "")`)
	}
	text, err := name.Text()
	if err != nil {
		return nil, err
	}
	coordinates, err := location.Int32s("latitude", "longitude")
	if err != nil {
		return nil, err
	}
	point := &routeguide.Point{Latitude: coordinates[0], Longitude: coordinates[1]}
	return &routeguide.Feature{Name: text, Location: point}, location.At(validate.Point("location", point))
}

// lineOf returns the line in which something is wrong, and what is.
func lineOf(text []byte, err error) (int, error) {
	line := 1
	if wrong, ok := errors.AsType[*strictjson.Error](err); ok {
		line += bytes.Count(text[:wrong.Offset], []byte("\n"))
		err = wrong.Err
	}
	return line, err
}
