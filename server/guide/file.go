package guide

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/validate"
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

// entry is one feature in the file format of the gRPC tutorials.
type entry struct {
	Location *struct {
		Latitude  int32 `json:"latitude"`
		Longitude int32 `json:"longitude"`
	} `json:"location"`
	Name *string `json:"name"`
}

// Parse reads features in the file format of the gRPC tutorials: a JSON array of objects like
// {"location": {"latitude": 1, "longitude": 2}, "name": "..."}, with coordinates in E7 degrees. A
// coordinate that is left out is 0, and an empty name is allowed and says that nothing is there.
// An error names the entry that is wrong, counted from 1, and its line.
func Parse(file []byte) ([]*routeguide.Feature, error) {
	decoder := json.NewDecoder(bytes.NewReader(file))
	// A misspelled field must not silently move a place to 0, 0.
	decoder.DisallowUnknownFields()
	if token, err := decoder.Token(); err != nil || token != json.Delim('[') {
		return nil, errors.New(`not a JSON array of features like {"location": {"latitude": 1, "longitude": 2}, "name": "..."}`)
	}
	var features []*routeguide.Feature
	for decoder.More() {
		line := lineAt(file, decoder.InputOffset())
		feature, err := parseEntry(decoder)
		if err != nil {
			return nil, fmt.Errorf("entry %d (line %d): %w", len(features)+1, line, err)
		}
		features = append(features, feature)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, fmt.Errorf("after entry %d: the array does not end: %w", len(features), noEOF(err))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: there is more after the array", lineAt(file, decoder.InputOffset()))
	}
	return features, nil
}

func parseEntry(decoder *json.Decoder) (*routeguide.Feature, error) {
	var entry entry
	if err := decoder.Decode(&entry); err != nil {
		return nil, noEOF(err)
	}
	if entry.Location == nil {
		return nil, errors.New("location is missing")
	}
	if entry.Name == nil {
		return nil, errors.New(`name is missing (it may be "")`)
	}
	location := &routeguide.Point{Latitude: entry.Location.Latitude, Longitude: entry.Location.Longitude}
	if err := validate.Point("location", location); err != nil {
		return nil, err
	}
	return &routeguide.Feature{Name: *entry.Name, Location: location}, nil
}

// noEOF says what an io.EOF means inside of a file: its end was not expected there.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// lineAt returns the line of what follows offset, white space and commas aside.
func lineAt(file []byte, offset int64) int {
	rest := file[offset:]
	next := len(rest) - len(bytes.TrimLeft(rest, " \t\r\n,"))
	return 1 + bytes.Count(file[:int(offset)+next], []byte("\n"))
}
