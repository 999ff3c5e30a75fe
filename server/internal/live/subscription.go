package live

import (
	"example.com/routeguide/server/internal/notes"
)

// subscription is a location that a follower follows.
type subscription struct {
	follower *follower
	location notes.Location
	index    int  // in place.subs
	at       mark // last note sent or queued
	state    state
	missed   bool // notes have come since the owner began to catch up
	// overtaken says that a note was forgotten before it was sent.
	overtaken bool
	since     int64       // time in nanoseconds until which all notes are known to be sent
	first     *notes.Span // first reply of a chat, if that is to be sent
}

// state is the state of a subscription: it waits for its beginning, it is behind and catches up, or it is live.
type state uint8

const (
	waiting state = iota
	behind
	live
)

// add adds a subscription to its place. The caller holds h.mu.
func (h *Hub) add(sub *subscription) {
	here := h.places[sub.location]
	if here == nil {
		here = &place{}
		h.places[sub.location] = here
	}
	sub.index = len(here.subs)
	here.subs = append(here.subs, sub)
}

// remove is the inverse of add.
func (h *Hub) remove(sub *subscription) {
	here := h.places[sub.location]
	last := len(here.subs) - 1
	here.subs[sub.index] = here.subs[last]
	here.subs[sub.index].index = sub.index
	here.subs[last] = nil
	if here.subs = here.subs[:last]; last == 0 {
		delete(h.places, sub.location)
	}
}

// deliver delivers notes of the place. The caller holds h.mu.
func (p *place) deliver(events *events) {
	for _, sub := range p.subs {
		sub.deliver(events)
	}
}

// deliver delivers notes of the location. The caller holds h.mu.
func (s *subscription) deliver(events *events) {
	first, last := events.list[0].Note.Position, events.last()
	switch {
	case s.state != live:
		s.missed = true
	case uint64(last.Note.Position) <= s.at.number: // It has read them.
	case uint64(first) <= s.at.number:
		s.fallBehind()
		s.follower.wakeUp()
	default:
		before := s.at
		s.at = events.mark()
		s.follower.deliver(delivery{events: events, sub: s, before: before})
	}
}

// fallBehind makes a live subscription catch up. The caller holds h.mu.
func (s *subscription) fallBehind() {
	if s.state == live {
		s.state, s.since = behind, notes.Now()
		s.follower.behind = append(s.follower.behind, s)
	}
}

// leaveBehind makes a live subscription catch up with notes that were not announced. The caller holds h.mu.
func (s *subscription) leaveBehind() {
	if s.state == live {
		s.fallBehind()
		s.since = min(s.since, s.follower.hub.complete)
	}
}
