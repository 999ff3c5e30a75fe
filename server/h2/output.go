package h2

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

const (
	// frameHeaderSize is the size of a frame's header in bytes: its length in three, its type, its flags, and its stream in four
	// (https://www.rfc-editor.org/rfc/rfc9113#section-4.1).
	frameHeaderSize = 9
	// maxQueued is how much output of a connection may be queued, in bytes, before handlers must wait. Beyond twice of it, the connection
	// is not read.
	maxQueued = 32 << 10
	// maxAcks is how many answers to PINGs wait for other output.
	maxAcks = 256
	// startBytes is how much output is written without a flush.
	startBytes = 4 << 10
	// writePiece is the part of the output, in bytes, that must be written within the stall timeout. It is more than handlers can queue, so
	// that most writes are one system call. A blocked write goes on once a third of the kernel's send buffer is free.
	writePiece = 64 << 10
	// ackDelay is how long a PING's answer may wait for other output to join: longer than a busy client takes between two messages.
	ackDelay = 5 * time.Millisecond
	// manyAcksDelay is the same for a client that sends another PING within manyAcksInterval. grpc-go sends one whenever it gets data after
	// the answer to the last one, to estimate bandwidth. Its answer joins no output within manyAcksJoinDelay, unless there is so much that
	// the estimate can change: grpc-go's does by two thirds of 64 KiB.
	manyAcksDelay     = 40 * time.Millisecond
	manyAcksJoinDelay = 20 * time.Millisecond
	manyAcksInterval  = time.Second
	muchOutput        = 16 << 10
)

var outputBuffers = sync.Pool{New: func() any {
	buffer := make([]byte, 0, maxQueued+maxFrame+2<<10)
	return &buffer
}}

// output is the queue of frames of a connection. A goroutine writes them while there are some. The connection's lock guards it.
type output struct {
	queued  []byte  // frames; nil if there are none
	buffer  *[]byte // from outputBuffers, behind queued
	writing bool    // the writer runs
	ended   bool    // nothing is queued any more
	// flushDue is set while a caller of TryWrite is going to flush.
	flushDue bool
	drained  sync.Cond
	// acks are the data of PINGs whose answers wait. From acksJoin on they join other output, and at acksDue they are written without it.
	acks              [][8]byte
	acksJoin, acksDue time.Time
	written           int       // bytes since acks was empty
	pingedAt          time.Time // when the last PING came
	// ackTimer starts the writer at acksDue. It is not reset while it runs, but runs again: the runtime looks at all of its timers after a
	// reset.
	ackTimer     *time.Timer
	acksAreTimed bool
	// waiting are the streams that have DATA to send, in the order in which they asked.
	waiting []*stream
	// last is the stream of the DATA frame at the end of queued, which starts at lastAt and may get longer; nil if there is none.
	last   *stream
	lastAt int
	// namedLast is set once the last GOAWAY was queued.
	namedLast bool
	headers   headerEncoder
}

// appendHeader appends the header of a frame.
func (o *output) appendHeader(length int, kind http2.FrameType, flags http2.Flags, stream uint32) {
	if o.queued == nil && !o.ended {
		o.buffer, _ = outputBuffers.Get().(*[]byte)
		o.queued = (*o.buffer)[:0]
	}
	o.last = nil
	o.queued = append(o.queued, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	o.queued = binary.BigEndian.AppendUint32(o.queued, stream)
}

func (o *output) appendSettings(settings ...http2.Setting) {
	o.appendHeader(6*len(settings), http2.FrameSettings, 0, 0)
	for _, setting := range settings {
		o.queued = binary.BigEndian.AppendUint16(o.queued, uint16(setting.ID))
		o.queued = binary.BigEndian.AppendUint32(o.queued, setting.Val)
	}
}

func (o *output) appendSettingsAck() {
	o.appendHeader(0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}

func (o *output) appendPing(ack bool, data [8]byte) {
	flags := http2.Flags(0)
	if ack {
		flags = http2.FlagPingAck
	}
	o.appendHeader(len(data), http2.FramePing, flags, 0)
	o.queued = append(o.queued, data[:]...)
}

func (o *output) appendWindowUpdate(stream uint32, increment int) {
	o.appendHeader(4, http2.FrameWindowUpdate, 0, stream)
	o.queued = binary.BigEndian.AppendUint32(o.queued, uint32(increment))
}

func (o *output) appendReset(stream uint32, code http2.ErrCode) {
	o.appendHeader(4, http2.FrameRSTStream, 0, stream)
	o.queued = binary.BigEndian.AppendUint32(o.queued, uint32(code))
}

func (o *output) appendGoAway(last uint32, code http2.ErrCode) {
	o.appendHeader(8, http2.FrameGoAway, 0, 0)
	o.queued = binary.BigEndian.AppendUint32(o.queued, last)
	o.queued = binary.BigEndian.AppendUint32(o.queued, uint32(code))
}

// appendBlock appends a header block as HEADERS and CONTINUATION.
func (o *output) appendBlock(stream *stream, block []byte, end bool) {
	flags, kind := http2.Flags(0), http2.FrameHeaders
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for {
		part := block[:min(len(block), maxFrame)]
		if block = block[len(part):]; len(block) == 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		o.appendHeader(len(part), kind, flags, stream.id)
		if o.queued = append(o.queued, part...); len(block) == 0 {
			return
		}
		flags, kind = 0, http2.FrameContinuation
	}
}

// appendData appends DATA, to the last frame if that is of the same stream.
func (o *output) appendData(stream *stream, data []byte, end bool) {
	if o.last == stream {
		if length := len(o.queued) - o.lastAt - frameHeaderSize + len(data); length <= maxFrame {
			header := o.queued[o.lastAt:]
			header[0], header[1], header[2] = byte(length>>16), byte(length>>8), byte(length)
			if end {
				header[4] |= byte(http2.FlagDataEndStream)
			}
			o.queued = append(o.queued, data...)
			return
		}
	}
	flags := http2.Flags(0)
	if end {
		flags = http2.FlagDataEndStream
	}
	o.appendHeader(len(data), http2.FrameData, flags, stream.id)
	o.last, o.lastAt = stream, len(o.queued)-frameHeaderSize
	o.queued = append(o.queued, data...)
}

// close wakes everything that waits for output to be written.
func (o *output) close() {
	o.ended = true
	o.recycle()
	if o.ackTimer != nil {
		o.ackTimer.Stop()
	}
	o.drained.Broadcast()
}

// recycle returns the buffer of queued.
func (o *output) recycle() {
	if o.buffer != nil {
		putOutput(o.buffer, o.queued)
	}
	o.queued, o.buffer, o.last = nil, nil, nil
}

// putOutput returns the buffer of queued frames, unless it has grown.
func putOutput(buffer *[]byte, queued []byte) {
	if cap(queued) == cap(*buffer) {
		outputBuffers.Put(buffer)
	}
}

// startWriter starts the writer if there is output, or the end of it. The caller holds c.mu.
func (c *conn) startWriter() {
	if (len(c.output.queued) > 0 || c.ending) && !c.output.writing && c.closed == nil {
		c.output.writing = true
		c.running.Add(1)
		go c.write()
	}
}

// write writes all output, and ends.
func (c *conn) write() {
	defer c.running.Done()
	c.mu.Lock()
	if len(c.streams) > 1 {
		c.mu.Unlock()
		runtime.Gosched() // What other streams are about to send comes with the same write.
		c.mu.Lock()
	}
	o := &c.output
	for len(o.queued) > 0 && c.closed == nil {
		o.joinAcksInTime()
		frames, buffer := o.queued, o.buffer
		o.queued, o.buffer, o.last = nil, nil, nil
		o.written += len(frames)
		o.drained.Broadcast()
		c.wakeNext()
		c.mu.Unlock()
		err := c.writePieces(frames)
		putOutput(buffer, frames)
		c.mu.Lock()
		if err != nil {
			c.mu.Unlock()
			c.close(err)
			c.mu.Lock()
		}
	}
	o.writing = false
	ends := c.ending
	c.mu.Unlock()
	if ends {
		// Half-close, and let the reader end soon. TLS writes here, and may block.
		_ = closeWrite(c.rwc)
		_ = c.rwc.SetReadDeadline(time.Now().Add(lingerTimeout))
	}
}

// writePieces writes frames, in pieces whose progress the watchdog sees.
func (c *conn) writePieces(frames []byte) error {
	for piece := range slices.Chunk(frames, writePiece) {
		c.writes.Add(1)
		_, err := c.transport.Write(piece)
		c.writes.Add(1)
		if err != nil {
			return err
		}
	}
	return nil
}

// acknowledge answers a PING, together with other output, or after a delay. The caller holds c.mu.
func (c *conn) acknowledge(data [8]byte) {
	o := &c.output
	now := time.Now()
	joinDelay, delay := time.Duration(0), ackDelay
	if now.Sub(o.pingedAt) < manyAcksInterval {
		joinDelay, delay = manyAcksJoinDelay, manyAcksDelay
	}
	o.pingedAt = now
	isFirst := len(o.acks) == 0
	o.acks = append(o.acks, data)
	switch {
	case len(c.streams) == 0 || len(o.acks) == maxAcks:
		o.joinAcks()
		c.startWriter()
	case isFirst:
		o.written = 0
		o.acksJoin, o.acksDue = now.Add(joinDelay), now.Add(delay)
		c.timeAcks(delay)
	}
}

// joinAcksInTime adds the answers that wait to the output that is going to be written, unless they may wait longer.
func (o *output) joinAcksInTime() {
	if len(o.acks) > 0 && (o.written+len(o.queued) >= muchOutput || !time.Now().Before(o.acksJoin)) {
		o.joinAcks()
	}
}

// joinAcks adds the answers that wait to the output.
func (o *output) joinAcks() {
	for _, data := range o.acks {
		o.appendPing(true, data)
	}
	o.acks = o.acks[:0]
}

// timeAcks starts the timer of answers to PINGs, unless it runs. The caller holds c.mu.
func (c *conn) timeAcks(delay time.Duration) {
	o := &c.output
	switch {
	case o.acksAreTimed:
		return
	case o.ackTimer == nil:
		o.ackTimer = time.AfterFunc(delay, c.acksAreDue)
	default:
		o.ackTimer.Reset(delay)
	}
	o.acksAreTimed = true
}

// acksAreDue is called by the timer.
func (c *conn) acksAreDue() {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.output
	o.acksAreTimed = false
	if len(o.acks) == 0 || o.ended {
		return
	}
	if left := time.Until(o.acksDue); left > 0 {
		c.timeAcks(left) // The answers that were due have been written with other output, and these are later ones.
		return
	}
	o.joinAcks()
	c.startWriter()
}

// wakeNext wakes the first stream that waits to send. The caller holds c.mu.
func (c *conn) wakeNext() {
	if len(c.output.waiting) > 0 {
		c.output.waiting[0].writable.Signal()
	}
}

// join puts a stream into the queue of those that wait to send. The caller holds c.mu.
func (c *conn) join(stream *stream) {
	if !slices.Contains(c.output.waiting, stream) {
		c.output.waiting = append(c.output.waiting, stream)
	}
}

// leave takes a stream out of the queue of those that wait to send. The caller holds c.mu.
func (c *conn) leave(stream *stream) {
	if i := slices.Index(c.output.waiting, stream); i >= 0 {
		c.output.waiting = slices.Delete(c.output.waiting, i, i+1)
		c.wakeNext()
	}
}
