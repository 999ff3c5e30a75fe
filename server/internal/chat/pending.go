package chat

import "example.com/routeguide/server/internal/notes"

// A reply answers one note with the log of its location, up to and including the note.
type reply struct {
	location notes.Location
	// through is the position of the note; 0 until the store settles it.
	through notes.Position
	// time is the time of the note, in nanoseconds since 1970.
	time int64
	// note is the encoded note while it may be the whole reply; else, or if the server holds too many bytes, nil.
	note []byte
}

// inlineReplies is the capacity of a chat's queue without an allocation.
const inlineReplies = 4

// pending is a FIFO ring buffer of replies, in the order of their notes. A reply takes 48 bytes, so that a
// client may send many notes before it reads. The zero value is an empty queue.
type pending struct {
	inline [inlineReplies]reply
	heap   []reply // replaces inline once that is full
	first  uint64  // number of the oldest reply, counted from the start of the chat
	count  int     // replies in the queue
}

// ring returns the ring buffer. Reply number n is at index n modulo its length.
func (p *pending) ring() []reply {
	if p.heap != nil {
		return p.heap
	}
	return p.inline[:]
}

// push adds an unsettled reply and returns its number.
func (p *pending) push(unsettled reply) uint64 {
	if p.count == len(p.ring()) {
		p.grow()
	}
	number := p.first + uint64(p.count)
	p.count++
	*p.reply(number) = unsettled
	return number
}

// reply returns the reply with a number that push returned. The reply must still be in the queue.
func (p *pending) reply(number uint64) *reply {
	ring := p.ring()
	return &ring[number%uint64(len(ring))]
}

// oldest returns the next reply to send. Its second result is false if that reply is not settled, or if the
// queue is empty.
func (p *pending) oldest() (reply, bool) {
	if p.count == 0 {
		return reply{}, false
	}
	oldest := *p.reply(p.first)
	return oldest, oldest.through != 0
}

// pop removes the oldest reply.
func (p *pending) pop() {
	p.reply(p.first).note = nil
	p.first++
	p.count--
	if p.count == 0 {
		p.heap = nil // An idle chat holds no heap memory.
	}
}

func (p *pending) grow() {
	grown := make([]reply, 2*p.count)
	for number := p.first; number < p.first+uint64(p.count); number++ {
		grown[number%uint64(len(grown))] = *p.reply(number)
	}
	p.heap = grown
}
