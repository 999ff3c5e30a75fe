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

// prefixSize is the length in bytes of an envelope's prefix: a flag, and the length of the message in four bytes.
const prefixSize = 5

var errMissingReplies = errors.New("missing replies")

// chat is one RouteChat. The mutex of its connection guards its fields.
type chat struct {
	connection *connection
	index      int
	stream     uint32
	window     int64 // send window of the stream, in bytes
	isBlocked  bool  // the chat is in connection.blocked
	changed    chan struct{}

	queued      timeQueue // due times of the notes to send
	unanswered  timeQueue // due times of the notes without a reply
	sent        uint32    // notes
	answered    uint32    // notes
	historyLeft int       // notes still to send for the history; 0 is no bound
	closedLoop  bool      // each reply queues the next note
	partial     []byte    // start of an incomplete envelope
	buffer      []byte    // reused by encode
	unsent      []byte    // rest of the envelope in buffer
	uncredited  int64     // bytes received since the last WINDOW_UPDATE
	headers     bool      // the response headers have arrived
	done        bool      // the stream has ended
	failed      bool      // counted in run.failed
}

// timeQueue is a FIFO queue.
type timeQueue struct {
	times []time.Time
	head  int
}

func (q *timeQueue) push(t time.Time) {
	if q.head > len(q.times)/2 {
		q.times = q.times[:copy(q.times, q.times[q.head:])]
		q.head = 0
	}
	q.times = append(q.times, t)
}

func (q *timeQueue) pop() time.Time {
	q.head++
	return q.times[q.head-1]
}

func (q *timeQueue) len() int {
	return len(q.times) - q.head
}

// start sends the first notes in a closed loop: each reply triggers the next note. It stops after history notes,
// unless that is 0.
func (c *chat) start(history int) {
	c.connection.mu.Lock()
	c.historyLeft, c.closedLoop = history, true
	ahead := 1
	switch {
	case c.connection.run.options.Mode == WrittenAhead:
		ahead = c.connection.run.options.Ahead
	case history > 0:
		ahead = history
	}
	for range ahead {
		c.enqueue(time.Now())
	}
	c.connection.mu.Unlock()
	c.connection.flush()
}

// write sends a note with a due time, in an open loop: replies trigger nothing. It returns false once the run stops.
func (c *chat) write(due time.Time) bool {
	c.connection.mu.Lock()
	defer c.connection.mu.Unlock()
	c.historyLeft, c.closedLoop = 0, false
	return c.enqueue(due)
}

// enqueue queues a note and sends it as soon as the windows allow. It returns false once the run stops. The
// caller holds the mutex.
func (c *chat) enqueue(due time.Time) bool {
	if c.done || c.connection.run.stopped.Load() {
		return !c.connection.run.stopped.Load()
	}
	if c.connection.run.options.Mode == Idle && c.sent > 0 {
		return true
	}
	c.queued.push(due)
	c.sendQueued()
	return true
}

// sendQueued sends queued notes as far as the windows allow. The caller holds the mutex.
func (c *chat) sendQueued() {
	for !c.done {
		if len(c.unsent) == 0 {
			if c.queued.len() == 0 {
				return
			}
			note, ok := c.encode()
			if !ok {
				c.queued = timeQueue{}
				return
			}
			c.unsent = note
			c.sent++
			c.unanswered.push(c.queued.pop())
		}
		part := min(int64(len(c.unsent)), c.window, c.connection.window, c.connection.maxFrame)
		if part <= 0 {
			// A WINDOW_UPDATE resumes it.
			if c.window > 0 && !c.isBlocked {
				c.isBlocked = true
				c.connection.blocked = append(c.connection.blocked, c)
			}
			return
		}
		_ = c.connection.framer.WriteData(c.stream, false, c.unsent[:part]) // Flush returns the error.
		c.unsent = c.unsent[part:]
		c.window -= part
		c.connection.window -= part
	}
}

// encode returns the next note as an envelope, and false once the run stops. The caller holds the mutex.
func (c *chat) encode() ([]byte, bool) {
	number, ok := c.connection.run.nextNumber()
	if !ok {
		return nil, false
	}
	latitude, longitude := c.connection.run.location(c.index, number)
	location := make([]byte, 0, 2*(1+binary.MaxVarintLen64))
	location = protowire.AppendVarint(protowire.AppendTag(location, 1, protowire.VarintType), uint64(int64(latitude)))
	location = protowire.AppendVarint(protowire.AppendTag(location, 2, protowire.VarintType), uint64(int64(longitude)))
	note := c.buffer[:0]
	note = append(note, 0, 0, 0, 0, 0) // The prefix; its length is set below.
	note = protowire.AppendBytes(protowire.AppendTag(note, 1, protowire.BytesType), location)
	note = protowire.AppendTag(note, 2, protowire.BytesType)
	note = protowire.AppendVarint(note, uint64(c.connection.run.options.NoteBytes))
	note = c.appendID(note, c.sent)
	for range c.connection.run.options.NoteBytes - MinNoteBytes {
		note = append(note, 'n')
	}
	binary.BigEndian.PutUint32(note[1:], uint32(len(note)-prefixSize))
	c.buffer = note
	return note, true
}

// appendID appends the first MinNoteBytes bytes of a note's text: run, chat and number. They match the reply to the
// note.
func (c *chat) appendID(text []byte, number uint32) []byte {
	const digits = "0123456789abcdef"
	text = append(text, c.connection.run.id...)
	for _, part := range [2]uint32{uint32(c.index), number} {
		for shift := 28; shift >= 0; shift -= 4 {
			text = append(text, digits[part>>shift&0xf])
		}
	}
	return text
}

// receive handles the envelopes of a DATA frame. The caller holds the mutex.
func (c *chat) receive(frame *http2.DataFrame) {
	if c.uncredited += int64(frame.Length); c.uncredited > receiveWindow/2 {
		_ = c.connection.framer.WriteWindowUpdate(c.stream, uint32(c.uncredited)) // Flush returns the error.
		c.uncredited = 0
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
		c.end(errors.New("stream ended without a gRPC status"))
	}
}

// receiveNote handles a note. The last note of a reply is the one that was sent. The caller holds the mutex.
func (c *chat) receiveNote(note []byte) {
	run := c.connection.run
	run.received.Add(1)
	text := len(note) - run.options.NoteBytes
	if c.unanswered.len() == 0 || text < 0 {
		return
	}
	var id [MinNoteBytes]byte
	if string(note[text:text+MinNoteBytes]) != string(c.appendID(id[:0], c.answered)) {
		return
	}
	c.answered++
	run.replies.Add(1)
	// The error is for values beyond the histogram's range, and no run is that long.
	_ = c.connection.latency.RecordValue(max(1, time.Since(c.unanswered.pop()).Microseconds()))
	if c.closedLoop {
		if c.historyLeft == 0 {
			c.enqueue(time.Now())
		} else if c.historyLeft--; c.historyLeft == 0 {
			c.closedLoop = false
		}
	}
	if c.unanswered.len() == 0 {
		c.signal()
	}
}

// receiveHeaders handles headers or trailers. The caller holds the mutex.
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
		c.end(fmt.Errorf("HTTP status %s", status))
	case !frame.StreamEnded():
		c.headers = true
	case grpcStatus == "0":
		c.end(nil)
	default:
		c.end(fmt.Errorf("gRPC status %s: %s", grpcStatus, message))
	}
}

// end marks the stream as ended. A nil error with unanswered notes counts as missing replies. The caller holds the
// mutex.
func (c *chat) end(err error) {
	if c.done {
		return
	}
	c.done = true
	if c.connection.run.openChats.Add(-1) == 0 {
		c.connection.run.stop()
	}
	if err == nil && c.unanswered.len() > 0 {
		err = errMissingReplies
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

// awaitReplies waits until every note has its reply, or the chat has ended.
func (c *chat) awaitReplies(ctx context.Context, timeout time.Duration) error {
	return c.await(ctx, timeout, func() bool {
		return c.done || c.unanswered.len() == 0 && (c.queued.len() == 0 || c.connection.run.stopped.Load())
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
			return fmt.Errorf("%w after %v", errMissingReplies, timeout)
		}
	}
}

// closeSend half-closes the stream.
func (c *chat) closeSend() {
	c.connection.mu.Lock()
	if !c.done {
		c.queued = timeQueue{}
		c.unsent = nil
		_ = c.connection.framer.WriteData(c.stream, true, nil) // Flush returns the error.
	}
	c.connection.mu.Unlock()
	c.connection.flush()
}
