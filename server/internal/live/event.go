package live

import (
	"hash/fnv"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

// event is a note that is delivered. Followers share it. The hub's lock guards alone, and encoded until a follower of locations or
// rectangles has queued it.
type event struct {
	*notes.Change

	encoded []byte // FollowNotesResponse with the note, made when it is first needed: chats do not need it
	alone   events // the event alone, in list
	list    [1]*event
}

func newEvent(change *notes.Change) *event {
	e := &event{Change: change}
	e.list[0] = e
	e.alone.list = e.list[:]
	return e
}

// encode returns a FollowNotesResponse with the note, encoded.
func (e *event) encode() []byte {
	if e.encoded == nil {
		e.encoded = appendNote([]byte{}, e.Location, &e.Note)
	}
	return e.encoded
}

// events are consecutive notes for one or more followers: of one location, or of one rectangle and one partition. The hub's lock guards
// the encodings, which are made once.
type events struct {
	list       []*event
	response   []byte // envelope of a FollowNotesResponse
	marked     []byte // FollowNotesResponse with a cursor, for followers of one location
	withCursor []byte // its envelope
	chat       []byte // envelopes of RouteNotes
	end        mark   // of the last note, for followers of one location
}

// eventsOf returns what was found, and empties it.
func eventsOf(found *[]*event) *events {
	list := *found
	if len(list) > 1 {
		*found = nil
		return &events{list: list}
	}
	alone := &list[0].alone
	clear(list)
	*found = list[:0]
	return alone
}

func (e *events) last() *event { return e.list[len(e.list)-1] }

// bytes returns the size of the notes.
func (e *events) bytes() (size int) {
	for _, event := range e.list {
		size += len(event.Note.Encoded)
	}
	return size
}

// message returns a FollowNotesResponse, encoded. Fields of Protobuf messages concatenate, so that a response with several notes is the
// concatenation of theirs.
func (e *events) message() []byte {
	if len(e.list) == 1 {
		return e.list[0].encode()
	}
	var message []byte
	for _, event := range e.list {
		message = append(message, event.encode()...)
	}
	return message
}

// encode makes the encodings of all notes, so that the owner of a follower finds them.
func (e *events) encode() {
	for _, event := range e.list {
		event.encode()
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

// envelope returns the envelope of a FollowNotesResponse.
func (e *events) envelope() []byte {
	if e.response == nil {
		e.response = wire.AppendEnvelope(nil, e.message())
	}
	return e.response
}

// markOfChange returns the mark of a change in its partition.
func markOfChange(change *notes.Change) mark {
	hash := fnv.New32a()
	writeNumbers(hash, uint64(uint32(change.Location.Latitude)), uint64(uint32(change.Location.Longitude)), uint64(change.Note.Position))
	return mark{number: uint64(change.Sequence), check: nonZero(hash.Sum32())}
}

// markOfNote returns the mark of a note in the log of its location.
func markOfNote(note *notes.Note) mark {
	hash := fnv.New32a()
	writeNumbers(hash, uint64(note.Time))
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
