package memorystore

import "example.com/routeguide/server/internal/notes"

// ids are the notes with IDs of a shard, in two generations: each lasts for [notes.IDLifetime], so that a note is
// known for that long at least, and for twice that at most.
type ids struct {
	current, previous map[identity]identified
	began             int64 // time of the first note of current, in nanoseconds since 1970
}

type identity struct {
	location notes.Location
	id       string
}

// identified is the first note with an ID.
type identified struct {
	receipt notes.Receipt
	hash    uint64 // of its encoded note
}

func (i *ids) find(location notes.Location, id string) (identified, bool) {
	key := identity{location, id}
	if first, ok := i.current[key]; ok {
		return first, true
	}
	first, ok := i.previous[key]
	return first, ok
}

func (i *ids) add(location notes.Location, id string, first identified) {
	if i.current == nil || first.receipt.Time-i.began > int64(notes.IDLifetime) {
		i.current, i.previous = make(map[identity]identified), i.current
		i.began = first.receipt.Time
	}
	i.current[identity{location, id}] = first
}
