package guide

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/textfile"
	"example.com/routeguide/server/internal/jsonfile"
	"example.com/routeguide/server/internal/validate"
)

//go:generate go run ./geonames -out features.json

// embedded has places in New Jersey and around New York, from the GeoNames gazetteer (https://www.geonames.org),
// licensed under CC BY 4.0, and one place of the gRPC tutorials. The program in ./geonames generates it.
//
//go:embed features.json
var embedded []byte

// Default returns the embedded features.
func Default() ([]*routeguide.Feature, error) {
	return Parse(embedded)
}

// An entry is a feature in a file. Its members have the names of the contract.
type entry struct {
	Location *struct {
		Latitude  int32 `json:"latitude"`
		Longitude int32 `json:"longitude"`
	} `json:"location"`
	Name *string `json:"name"`
}

// Parse parses features in the file formats of the gRPC tutorials: a JSON array of objects like
// {"location": {"latitude": 1, "longitude": 2}, "name": "..."}, with coordinates in E7 degrees, or an object with
// that array as its member "feature". A missing coordinate is 0. An empty name is allowed, and means that nothing is
// there. Parse skips a byte order mark. Errors have the line and the number of the entry, from 1.
func Parse(file []byte) ([]*routeguide.Feature, error) {
	text := bytes.TrimPrefix(file, []byte(textfile.BOM))
	entries, list, err := parseEntries(text)
	if err != nil {
		return nil, withLine(text, list, err)
	}
	features := make([]*routeguide.Feature, len(entries))
	for i, entry := range entries {
		feature, member, err := entry.feature()
		if err != nil {
			pointer := list.AppendToken(strconv.Itoa(i)) + member
			return nil, withLine(text, list, jsonfile.At(text, pointer, err))
		}
		features[i] = feature
	}
	return features, nil
}

// parseEntries returns the elements of the array, in either format, and the pointer to the array.
func parseEntries(text []byte) (entries []entry, list jsontext.Pointer, err error) {
	var object struct {
		Feature []entry `json:"feature"`
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		list = "/feature"
		err = jsonfile.Unmarshal(text, &object)
	} else {
		err = jsonfile.Unmarshal(text, &object.Feature)
	}
	if err == nil && object.Feature == nil {
		err = jsonfile.At(text, "", errors.New(`want an array of features like {"location": {"latitude": 1, "longitude": 2}, "name": "..."}, or {"feature": [...]}`))
	}
	return object.Feature, list, err
}

// feature returns the feature of an entry, or an error and the pointer to the invalid member.
func (e *entry) feature() (*routeguide.Feature, jsontext.Pointer, error) {
	if e.Location == nil {
		return nil, "", errors.New("location is missing")
	}
	if e.Name == nil {
		return nil, "", errors.New(`name is missing (it may be "")`)
	}
	point := &routeguide.Point{Latitude: e.Location.Latitude, Longitude: e.Location.Longitude}
	return &routeguide.Feature{Name: *e.Name, Location: point}, "/location", validate.Point("location", point)
}

// withLine adds the line to err, and the number of the entry if err is within one.
func withLine(text []byte, list jsontext.Pointer, err error) error {
	positioned, ok := errors.AsType[*jsonfile.Error](err)
	if !ok {
		return err
	}
	line := 1 + bytes.Count(text[:positioned.Offset], []byte("\n"))
	index, _, _ := strings.Cut(strings.TrimPrefix(string(positioned.Pointer), string(list)+"/"), "/")
	if i, err := strconv.Atoi(index); err == nil {
		return fmt.Errorf("entry %d (line %d): %w", i+1, line, positioned.Err)
	}
	return fmt.Errorf("line %d: %w", line, positioned.Err)
}
