package pebblestore

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

// street returns a number of a grid of locations 11 m apart, 1,024 in a row.
func street(i, offset int32) uint64 {
	return zorder.Of(notes.Location{Latitude: 407_838_351 + i/1024*1000 + offset, Longitude: -746_143_763 + i%1024*1000 + offset})
}

// numbers are locations that are added to a filter, and others of the same kind that are not.
var numbers = map[string]struct{ added, other func(i int32) uint64 }{
	"random": {
		func(i int32) uint64 { return rand.New(rand.NewPCG(1, uint64(i))).Uint64() },
		func(i int32) uint64 { return rand.New(rand.NewPCG(2, uint64(i))).Uint64() },
	},
	"consecutive numbers": {
		func(i int32) uint64 { return 1<<62 + uint64(i) },
		func(i int32) uint64 { return 1<<62 - 1 - uint64(i) },
	},
	"a city": {
		func(i int32) uint64 { return street(i, 0) },
		func(i int32) uint64 { return street(i, 500) },
	},
	"the first and the last numbers": {
		func(i int32) uint64 { return uint64(i/2) ^ -uint64(i%2) },
		func(i int32) uint64 { return 1<<32 + (uint64(i/2) ^ -uint64(i%2)) },
	},
}

func TestFilterNeverMissesAndIsSeldomWrong(t *testing.T) {
	t.Parallel()
	const full = 1 << 18
	for name, test := range numbers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			filter := newFilter(full)
			for i := range int32(full) {
				filter.add(test.added(i))
			}
			wrong := 0
			for i := range int32(full) {
				if !filter.has(test.added(i)) {
					t.Fatalf("location %d is missed", i)
				}
				if filter.has(test.other(i)) {
					wrong++
				}
			}
			if wrong > full/1000 {
				t.Errorf("%d of %d other locations are said to be there, more than 0.1%%", wrong, full)
			}
		})
	}
}

func TestFilterFile(t *testing.T) {
	t.Parallel()
	for name, fs := range map[string]vfs.FS{"mapped": vfs.Default, "read": vfs.NewMem()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, count := range []int{1, 16, 17, 5000} {
				dir := t.TempDir()
				if err := fs.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				filter, epoch := newFilter(count), &epoch{number: uint32(count), first: 7}
				for i := range int32(count) {
					filter.add(street(i, 0))
				}
				if err := filter.save(fs, dir, epoch); err != nil {
					t.Fatal(err)
				}
				loaded, err := loadFilter(fs, dir, epoch, count)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(loaded.words, filter.words) || !loaded.saved {
					t.Errorf("the filter of %d locations is another one once it is loaded", count)
				}
			}
		})
	}
}
