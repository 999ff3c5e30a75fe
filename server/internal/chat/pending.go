package chat

import "example.com/routeguide/server/internal/notes"

// A reply is what one note is answered with: the log of its location, up to the note.
type reply struct {
	at notes.Location
	// upto is 0 until the store has settled the note.
	upto notes.Position
	// since is the time of the note.
	since int64
}

// fewReplies is how much room a chat has for replies without asking for more.
const fewReplies = 4

// pending is a queue of replies, in the order of the notes that they answer. A reply is 24 bytes
// long, so that a client may write a great many notes before it reads. The zero value is an empty
// queue.
type pending struct {
	few   [fewReplies]reply
	more  []reply // is used instead of few, once that is too small
	first uint64  // the number of the oldest reply, counted from the start of the chat
	count int
}

// ring returns the replies; that with number n is at index n modulo the length.
func (p *pending) ring() []reply {
	if p.more != nil {
		return p.more
	}
	return p.few[:]
}

// push adds a reply that waits for the store, and returns its number.
func (p *pending) push(at notes.Location, since int64) uint64 {
	if p.count == len(p.ring()) {
		p.grow()
	}
	number := p.first + uint64(p.count)
	p.count++
	*p.reply(number) = reply{at: at, since: since}
	return number
}

// reply returns the reply with a number that push returned and pop did not reach yet.
func (p *pending) reply(number uint64) *reply {
	ring := p.ring()
	return &ring[number%uint64(len(ring))]
}

// oldest returns the reply to send next. Its second result is false if that still waits for the
// store, or if there is none.
func (p *pending) oldest() (reply, bool) {
	if p.count == 0 {
		return reply{}, false
	}
	oldest := *p.reply(p.first)
	return oldest, oldest.upto != 0
}

// pop removes the oldest reply.
func (p *pending) pop() {
	p.first++
	p.count--
	if p.count == 0 {
		p.more = nil // A chat that has nothing to send holds no memory for it.
	}
}

func (p *pending) grow() {
	more := make([]reply, 2*p.count)
	for number := p.first; number < p.first+uint64(p.count); number++ {
		more[number%uint64(len(more))] = *p.reply(number)
	}
	p.more = more
}
