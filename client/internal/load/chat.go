package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/encoding/protowire"
)

// prefixSize is what precedes a message in a gRPC stream: a flag, and the length in four bytes.
const prefixSize = 5

var errLate = errors.New("replies are missing")

// chat is one RouteChat. What it has is guarded by its connection's mutex.
type chat struct {
	connection *connection
	index      int
	stream     uint32
	window     int64 // what may be sent on the stream
	isBlocked  bool  // it is among the connection's blocked
	changed    chan struct{}

	toSend   times  // when the notes were due that wait to be sent
	waiting  times  // when those were due that wait for a reply
	written  uint32 // how many notes were sent
	answered uint32
	left     int // how many notes are still to be written for the history
	writing  bool
	partial  []byte // of a message that has not come whole
	buffer   []byte // where a note is encoded
	rest     []byte // what is still to be sent of it
	unread   int64  // what has been received since the last WINDOW_UPDATE
	headers  bool   // the server's have come
	done     bool   // the stream has ended
	failed   bool
}

// times is a queue.
type times struct {
	all   []time.Time
	first int
}

func (t *times) push(at time.Time) {
	if t.first > len(t.all)/2 {
		t.all = t.all[:copy(t.all, t.all[t.first:])]
		t.first = 0
	}
	t.all = append(t.all, at)
}

func (t *times) pop() time.Time {
	t.first++
	return t.all[t.first-1]
}

func (t *times) count() int {
	return len(t.all) - t.first
}

// begin writes the first notes, from where on replies bring about more: history of them at most, unless that
// is 0.
func (c *chat) begin(history int) {
	c.connection.mu.Lock()
	c.left, c.writing = history, true
	ahead := 1
	switch {
	case c.connection.run.options.Mode == WrittenAhead:
		ahead = c.connection.run.options.Ahead
	case history > 0:
		ahead = history
	}
	for range ahead {
		c.next(time.Now())
	}
	c.connection.mu.Unlock()
	c.connection.flush()
}

// write writes a note that was due. It returns false if no more may be written.
func (c *chat) write(due time.Time) bool {
	c.connection.mu.Lock()
	defer c.connection.mu.Unlock()
	c.left, c.writing = 0, false
	return c.next(due)
}

// next writes a note, as soon as the windows allow it. It returns false if no more may be written. The
// caller holds the mutex.
func (c *chat) next(due time.Time) bool {
	if c.done || c.connection.run.over.Load() {
		return !c.connection.run.over.Load()
	}
	if c.connection.run.options.Mode == Idle && c.written > 0 {
		return true
	}
	c.toSend.push(due)
	c.pump()
	return true
}

// pump sends notes as far as the windows allow. The caller holds the mutex.
func (c *chat) pump() {
	for !c.done {
		if len(c.rest) == 0 {
			if c.toSend.count() == 0 {
				return
			}
			note, ok := c.encode()
			if !ok {
				c.toSend = times{}
				return
			}
			c.rest = note
			c.written++
			c.waiting.push(c.toSend.pop())
		}
		part := min(int64(len(c.rest)), c.window, c.connection.window, c.connection.maxFrame)
		if part <= 0 {
			// It goes on with a WINDOW_UPDATE.
			if c.window > 0 && !c.isBlocked {
				c.isBlocked = true
				c.connection.blocked = append(c.connection.blocked, c)
			}
			return
		}
		_ = c.connection.framer.WriteData(c.stream, false, c.rest[:part]) // An error comes again with Flush.
		c.rest = c.rest[part:]
		c.window -= part
		c.connection.window -= part
	}
}

// encode returns the next note with its prefix. The caller holds the mutex.
func (c *chat) encode() ([]byte, bool) {
	number, ok := c.connection.run.take()
	if !ok {
		return nil, false
	}
	latitude, longitude := c.connection.run.location(c.index, number)
	location := make([]byte, 0, 2*(1+binary.MaxVarintLen64))
	location = protowire.AppendVarint(protowire.AppendTag(location, 1, protowire.VarintType), uint64(int64(latitude)))
	location = protowire.AppendVarint(protowire.AppendTag(location, 2, protowire.VarintType), uint64(int64(longitude)))
	note := c.buffer[:0]
	note = append(note, 0, 0, 0, 0, 0) // The prefix, whose length is set below.
	note = protowire.AppendBytes(protowire.AppendTag(note, 1, protowire.BytesType), location)
	note = protowire.AppendTag(note, 2, protowire.BytesType)
	note = protowire.AppendVarint(note, uint64(c.connection.run.options.NoteBytes))
	note = c.appendName(note, c.written)
	for range c.connection.run.options.NoteBytes - MinNoteBytes {
		note = append(note, 'n')
	}
	binary.BigEndian.PutUint32(note[1:], uint32(len(note)-prefixSize))
	c.buffer = note
	return note, true
}

// appendName appends what the text of a note of this chat begins with, by which its reply is known.
func (c *chat) appendName(text []byte, number uint32) []byte {
	const digits = "0123456789abcdef"
	text = append(text, c.connection.run.id...)
	for _, part := range [2]uint32{uint32(c.index), number} {
		for shift := 28; shift >= 0; shift -= 4 {
			text = append(text, digits[part>>shift&0xf])
		}
	}
	return text
}

// receive takes the messages of a DATA frame. The caller holds the mutex.
func (c *chat) receive(frame *http2.DataFrame) {
	if c.unread += int64(frame.Length); c.unread > ownWindow/2 {
		_ = c.connection.framer.WriteWindowUpdate(c.stream, uint32(c.unread)) // As above.
		c.unread = 0
	}
	data := frame.Data()
	if len(c.partial) > 0 {
		c.partial = append(c.partial, data...)
		data = c.partial
	}
	for len(data) >= prefixSize {
		size := prefixSize + int(binary.BigEndian.Uint32(data[1:]))
		if len(data) < size {
			break
		}
		c.receiveNote(data[prefixSize:size])
		data = data[size:]
	}
	c.partial = append(c.partial[:0], data...)
	if frame.StreamEnded() {
		c.end(errors.New("the stream has ended without a status"))
	}
}

// receiveNote takes a note. The last one of a reply is that which asked for it. The caller holds the mutex.
func (c *chat) receiveNote(note []byte) {
	run := c.connection.run
	run.received.Add(1)
	text := len(note) - run.options.NoteBytes
	if c.waiting.count() == 0 || text < 0 {
		return
	}
	var name [MinNoteBytes]byte
	if string(note[text:text+MinNoteBytes]) != string(c.appendName(name[:0], c.answered)) {
		return
	}
	c.answered++
	run.replies.Add(1)
	_ = c.connection.latency.RecordValue(max(1, time.Since(c.waiting.pop()).Microseconds())) // Longer ones than it takes do not come.
	if c.writing {
		if c.left == 0 {
			c.next(time.Now())
		} else if c.left--; c.left == 0 {
			c.writing = false
		}
	}
	if c.waiting.count() == 0 {
		c.signal()
	}
}

// receiveHeaders takes headers or trailers. The caller holds the mutex.
func (c *chat) receiveHeaders(frame *http2.MetaHeadersFrame) {
	var status, grpcStatus, message string
	for _, field := range frame.Fields {
		switch field.Name {
		case ":status":
			status = field.Value
		case "grpc-status":
			grpcStatus = field.Value
		case "grpc-message":
			message, _ = url.PathUnescape(field.Value)
		}
	}
	switch {
	case !c.headers && status != "200":
		c.end(fmt.Errorf("the HTTP status is %s", status))
	case !frame.StreamEnded():
		c.headers = true
	case grpcStatus == "0":
		c.end(nil)
	default:
		c.end(fmt.Errorf("the server's error has the code %s: %s", grpcStatus, message))
	}
}

// end notes that the stream has ended. The caller holds the mutex.
func (c *chat) end(err error) {
	if c.done {
		return
	}
	c.done = true
	if c.connection.run.live.Add(-1) == 0 {
		c.connection.run.finish()
	}
	if err == nil && c.waiting.count() > 0 {
		err = errLate
	}
	if err != nil && !c.failed {
		c.failed = true
		c.connection.run.fail(err)
	}
	c.signal()
}

func (c *chat) fail(err error) {
	c.connection.mu.Lock()
	defer c.connection.mu.Unlock()
	if !c.failed {
		c.failed = true
		c.connection.run.fail(err)
	}
}

func (c *chat) signal() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// awaitReplies waits until no note waits for a reply, or the chat has ended.
func (c *chat) awaitReplies(ctx context.Context, timeout time.Duration) error {
	return c.await(ctx, timeout, func() bool {
		return c.done || c.waiting.count() == 0 && (c.toSend.count() == 0 || c.connection.run.over.Load())
	})
}

// awaitEnd waits until the stream has ended.
func (c *chat) awaitEnd(ctx context.Context) error {
	return c.await(ctx, endTimeout, func() bool { return c.done })
}

func (c *chat) await(ctx context.Context, timeout time.Duration, condition func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		c.connection.mu.Lock()
		met := condition()
		c.connection.mu.Unlock()
		if met {
			return nil
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return context.Canceled
			}
			return fmt.Errorf("%w after %v", errLate, timeout)
		}
	}
}

// closeSend ends the client's side of the stream.
func (c *chat) closeSend() {
	c.connection.mu.Lock()
	if !c.done {
		c.toSend = times{}
		c.rest = nil
		_ = c.connection.framer.WriteData(c.stream, true, nil) // An error comes again with Flush.
	}
	c.connection.mu.Unlock()
	c.connection.flush()
}
