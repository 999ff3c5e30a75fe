package live

import (
	"slices"

	"example.com/routeguide/server/internal/notes"
)

// area is a rectangle that a follower follows.
type area struct {
	found []*event // in the announcement that is being delivered
	// marks are the last changes sent, by partition, of one that is behind. One that is live is where the hub is, or has queued the rest.
	marks []mark
	// ahead are the last changes sent of one that is live, and that has read further than the hub; nil once the hub has come there.
	ahead []mark
	// least is what to catch up with, at least, because it was kept before the call; nil once it has.
	least []mark
	// final says that the call ends once it has caught up, with last, which is behind the hub if further notes have come meanwhile.
	final     bool
	last      []mark
	rectangle notes.Rectangle
}

// deliverArea delivers the notes that were found in the area. The caller holds h.mu.
func (f *follower) deliverArea(partition int, before mark) {
	found := f.area.found
	if f.area.marks != nil {
		clear(found) // It will find them in the store.
		found = found[:0]
	}
	if f.area.ahead != nil {
		found = f.skip(found, partition)
	}
	if f.area.found = found; len(found) == 0 {
		return
	}
	f.deliver(delivery{events: eventsOf(&f.area.found), partition: partition, before: before})
}

// skip returns the notes that the area has not read itself. The caller holds h.mu.
func (f *follower) skip(found []*event, partition int) []*event {
	found = slices.DeleteFunc(found, func(event *event) bool {
		return uint64(event.Sequence) <= f.area.ahead[partition].number
	})
	if !isAhead(f.area.ahead, f.hub.marks) {
		f.area.ahead = nil
	}
	return found
}

// isAhead returns whether marks are further than others in any partition.
func isAhead(marks, others []mark) bool {
	for partition := range marks {
		if marks[partition].number > others[partition].number {
			return true
		}
	}
	return false
}

// reached returns the last changes that were sent or queued for a live area. The caller holds h.mu.
func (f *follower) reached() []mark {
	marks := slices.Clone(f.hub.marks)
	for partition, ahead := range f.area.ahead {
		if ahead.number > marks[partition].number {
			marks[partition] = ahead
		}
	}
	return marks
}
