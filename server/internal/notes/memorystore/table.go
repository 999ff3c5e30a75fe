package memorystore

// A table is a hash table from the numbers of locations in Z-order to places. It is here, and not a map, because a note
// costs little more than the loads from memory for its location: a table takes one, a map several. It has no pointers, uses
// linear probing, and is at most three quarters full. The zero value is empty.
type table struct {
	slots []slot // a power of two
	count int
}

// A slot is free if used is 0.
type slot struct {
	z    uint64
	used uint64 // place + 1
}

func (s *slot) place() uint64 { return s.used - 1 }

func (s *slot) set(place uint64) { s.used = place + 1 }

// minSlots is the smallest size of a table that is not empty.
const minSlots = 16

// find returns the slot of a number with a hash, or nil.
func (t *table) find(hash, z uint64) *slot {
	if t.count == 0 {
		return nil
	}
	if slot := t.probe(hash, z); slot.used != 0 {
		return slot
	}
	return nil
}

// claim returns the slot of a number. If that was not in the table, it is now, its slot is free, and the caller must set
// its place. The function hash is for the other numbers.
func (t *table) claim(hash func(uint64) uint64, h, z uint64) *slot {
	if t.count >= len(t.slots)/4*3 {
		t.grow(hash)
	}
	slot := t.probe(h, z)
	if slot.used == 0 {
		slot.z = z
		t.count++
	}
	return slot
}

// probe returns the slot of a number, or the free one where it would be.
func (t *table) probe(hash, z uint64) *slot {
	last := uint64(len(t.slots) - 1)
	for i := hash & last; ; i = (i + 1) & last {
		if slot := &t.slots[i]; slot.used == 0 || slot.z == z {
			return slot
		}
	}
}

func (t *table) grow(hash func(uint64) uint64) {
	old := t.slots
	t.slots = make([]slot, max(2*len(old), minSlots))
	for _, slot := range old {
		if slot.used != 0 {
			*t.probe(hash(slot.z), slot.z) = slot
		}
	}
}

// rebuild removes the slots that keep does not want.
func (t *table) rebuild(hash func(uint64) uint64, keep func(*slot) bool) {
	var kept table
	for i := range t.slots {
		if slot := &t.slots[i]; slot.used != 0 && keep(slot) {
			*kept.claim(hash, hash(slot.z), slot.z) = *slot
		}
	}
	*t = kept
}
