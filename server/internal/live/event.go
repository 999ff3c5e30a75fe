package live

import (
	"encoding/binary"
	"hash/fnv"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

// event is a note that is delivered. Followers share it.
type event struct {
	*notes.Change

	alone events // the event alone, in list
	list  [1]*event
}

func newEvent(change *notes.Change) *event {
	e := &event{Change: change}
	e.list[0] = e
	e.alone.list = e.list[:]
	return e
}

// events are consecutive notes for one or more followers: of one location, or of one rectangle and one partition. Their encodings are made
// when they are first needed, since each kind of follower needs another one. The hub's lock guards them, until an owner has them in its queue.
type events struct {
	list     []*event
	response []byte // envelope of a FollowNotesResponse
	marked   []byte // the same with a cursor, for followers of one location
	chat     []byte // envelopes of RouteNotes
	end      mark   // of the last note, for followers of one location
}

// eventsOf returns what was found.
func eventsOf(found []*event) *events {
	if len(found) == 1 {
		return &found[0].alone
	}
	return &events{list: found}
}

func (e *events) last() *event { return e.list[len(e.list)-1] }

// bytes returns the size of the notes.
func (e *events) bytes() (size int) {
	for _, event := range e.list {
		size += len(event.Note.Encoded)
	}
	return size
}

// envelope returns the envelope of a FollowNotesResponse. Fields of Protobuf messages concatenate, so that a response with several notes is
// the concatenation of theirs.
func (e *events) envelope() []byte {
	if e.response != nil {
		return e.response
	}
	var array [512]byte
	message := array[:0]
	if len(e.list) == 1 {
		message = appendNote(message, e.list[0].Location, &e.list[0].Note)
	} else {
		for _, event := range e.list {
			message = append(message, event.alone.message()...)
		}
	}
	e.response = wire.AppendEnvelope(nil, message)
	return e.response
}

// message returns a FollowNotesResponse, encoded.
func (e *events) message() []byte { return wire.MessageOf(e.envelope()) }

// encode makes the encodings of all notes, so that the owner of a follower finds them.
func (e *events) encode() {
	for _, event := range e.list {
		event.alone.envelope()
	}
}

// chatEnvelopes returns the notes as envelopes of RouteNotes.
func (e *events) chatEnvelopes() []byte {
	if e.chat == nil {
		for _, event := range e.list {
			e.chat = wire.AppendEnvelope(e.chat, event.Note.Encoded)
		}
	}
	return e.chat
}

// markOfChange returns the mark of a change in its partition.
func markOfChange(change *notes.Change) mark {
	var key [24]byte // on the stack: this is done for each announcement
	binary.BigEndian.PutUint64(key[:], uint64(uint32(change.Location.Latitude)))
	binary.BigEndian.PutUint64(key[8:], uint64(uint32(change.Location.Longitude)))
	binary.BigEndian.PutUint64(key[16:], uint64(change.Note.Position))
	hash := fnv.New32a()
	_, _ = hash.Write(key[:]) // It cannot fail.
	return mark{number: uint64(change.Sequence), check: nonZero(hash.Sum32())}
}

// markOfNote returns the mark of a note in the log of its location.
func markOfNote(note *notes.Note) mark {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(note.Time))
	hash := fnv.New32a()
	_, _ = hash.Write(at[:])
	_, _ = hash.Write(note.Encoded) // It cannot fail.
	return mark{number: uint64(note.Position), check: nonZero(hash.Sum32())}
}

func nonZero(sum uint32) uint32 { return max(sum, 1) }

// mark returns the mark of the last note in the log of its location.
func (e *events) mark() mark {
	if e.end.check == 0 {
		e.end = markOfNote(&e.last().Note)
	}
	return e.end
}
