package memorystore

import (
	"hash/maphash"
	"math/rand/v2"
	"testing"
)

// A table does what a map does.
func TestTableAgreesWithMap(t *testing.T) {
	t.Parallel()
	seed := maphash.MakeSeed()
	for name, hash := range map[string]func(uint64) uint64{
		"a good hash":          func(z uint64) uint64 { return maphash.Comparable(seed, z) },
		"all in one place":     func(uint64) uint64 { return 1<<64 - 1 },
		"close to one another": func(z uint64) uint64 { return z / 7 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			var table table
			want := make(map[uint64]uint64)
			for step := range 5000 {
				z := random.Uint64N(800)
				switch {
				case step%1000 == 999:
					table.rebuild(hash, func(slot *slot) bool { return slot.z%3 != 0 })
					for z := range want {
						if z%3 == 0 {
							delete(want, z)
						}
					}
				case random.IntN(2) == 0:
					slot := table.claim(hash, hash(z), z)
					if place, ok := want[z]; ok != (slot.used != 0) || ok && slot.place() != place {
						t.Fatalf("step %d: the slot of %d is %v, want the place %d, %v", step, z, *slot, place, ok)
					}
					slot.set(uint64(step))
					want[z] = uint64(step)
				default:
					slot := table.find(hash(z), z)
					if place, ok := want[z]; ok != (slot != nil) || ok && slot.place() != place {
						t.Fatalf("step %d: the slot of %d is %v, want the place %d, %v", step, z, slot, place, ok)
					}
				}
				if table.count != len(want) {
					t.Fatalf("step %d: the table has %d slots, want %d", step, table.count, len(want))
				}
			}
		})
	}
}
