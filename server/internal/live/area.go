package live

import (
	"slices"

	"example.com/routeguide/server/internal/notes"
)

// area is a rectangle that a follower follows.
type area struct {
	found []*event // in an announcement of several changes that is being delivered
	// marks are the last changes sent, by partition, of one that is behind. One that is live is where the hub is, or has queued the rest.
	marks []mark
	// least is what to catch up with, at least, because it was kept before the call; nil once it has.
	least []mark
	// final says that the call ends once it has caught up, with last, which is behind the hub if further notes have come meanwhile.
	final     bool
	last      []mark
	rectangle notes.Rectangle
}

// deliverArea delivers consecutive notes of a partition that were found in the area. The caller holds h.mu.
func (f *follower) deliverArea(found []*event, partition int, before mark) {
	if !f.idle && f.area.marks != nil {
		return // It will find them in the store.
	}
	if f.ahead != nil {
		found = f.skip(found, partition)
	}
	if len(found) > 0 {
		f.deliver(delivery{events: eventsOf(found), partition: partition, before: before})
	}
}

// skip returns the notes that the area has not read itself. The caller holds h.mu.
func (f *follower) skip(found []*event, partition int) []*event {
	for len(found) > 0 && uint64(found[0].Sequence) <= f.ahead[partition].number {
		found = found[1:]
	}
	if !isAhead(f.ahead, f.hub.marks) {
		f.ahead = nil
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

// reached returns the last changes that were sent or queued for a live area. They must not be changed. The caller holds h.mu.
func (f *follower) reached() []mark {
	if f.ahead == nil {
		return f.hub.marks
	}
	marks := slices.Clone(f.hub.marks)
	for partition, ahead := range f.ahead {
		if ahead.number > marks[partition].number {
			marks[partition] = ahead
		}
	}
	return marks
}
