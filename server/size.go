package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a size in bytes. As text it may have a unit: 500000, 20GiB.
type byteSize int64

var byteUnits = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *byteSize) UnmarshalText(text []byte) error {
	number, factor := string(text), int64(1)
	for _, unit := range byteUnits {
		if rest, found := strings.CutSuffix(number, unit.suffix); found {
			number, factor = rest, unit.factor
			break
		}
	}
	value, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || value < 0 || value > math.MaxInt64/factor {
		return fmt.Errorf("%q is not a size: want a number of bytes, or one with a unit, such as 20GiB", text)
	}
	*s = byteSize(value * factor)
	return nil
}
