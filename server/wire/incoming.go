package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"runtime"
)

const (
	// readBytes is how much is read at once from a connection on which much comes in.
	readBytes = 32 << 10
	// idleReadBytes is how much is read at once from any other connection, so that one that is silent
	// holds little memory.
	idleReadBytes = 2 << 10
	// preface is what a client of HTTP/2 sends first
	// (https://www.rfc-editor.org/rfc/rfc9113#section-3.4).
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// frameHeaderSize is the size of a frame's header: its length in three bytes, its type, its flags,
	// and its stream in four (https://www.rfc-editor.org/rfc/rfc9113#section-4.1).
	frameHeaderSize = 9
	// mergeBytes is how long a DATA frame is made at most: as long as every peer must accept.
	mergeBytes = 16 << 10
	// mergeFrames is how many DATA frames are made one at most, and lookFrames how many are looked at for
	// that.
	mergeFrames = 64
	lookFrames  = 256
)

// The types of frames and the flags that matter here. A frame whose payload has gone with another one
// is marked as of a type that HTTP/2 does not have, and that is passed over like all such.
const (
	typeData         = 0x0
	typeHeaders      = 0x1
	typeReset        = 0x3
	typeSettings     = 0x4
	typePushPromise  = 0x5
	typePing         = 0x6
	typeWindowUpdate = 0x8
	typeContinuation = 0x9
	typeMerged       = 0xff

	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
)

var readBuffers = newPool(readBytes)

// incoming is what comes in on a connection: read with a buffer, and, with HTTP/2, made fewer frames.
// net/http's server hands each frame from one goroutine to another and back, and on to a third one if
// it is DATA, which with small messages costs more than all that is done with them. So of the frames
// that have been read together,
//
//   - those with DATA of one stream become one frame;
//   - a PING is answered here.
//
// After each HEADERS the processor is yielded once.
//
// All else is passed on as it is, and so is everything that is not HTTP/2 in clear. Only complete frames
// are looked at, and nothing waits for more: what has arrived is passed on. The order of the frames of
// a stream stays as it was, and so does the sum of their lengths, which is what flow control counts.
type incoming struct {
	buffered

	// answer answers the PING that carries some data.
	answer  func(data [pingDataSize]byte) error
	windows *windows // nil if they are left to net/http

	ready    []byte    // what is to be passed on first
	segments []segment // and then these from nextSegment on, the payloads of merged frames
	left     int       // and then this much, of a frame that is passed on as it comes

	nextSegment int

	state   incomingState
	matched int  // how much of the preface has come
	opened  bool // what was made ready last may begin a request
}

// segment is a part of the buffer.
type segment struct{ start, end int }

func newIncoming(from io.Reader, answer func([pingDataSize]byte) error, windows *windows) *incoming {
	return &incoming{
		buffered: buffered{from: from, small: make([]byte, idleReadBytes), pool: readBuffers},
		answer:   answer,
		windows:  windows,
	}
}

type incomingState int

const (
	inPreface incomingState = iota
	// beforeSettings is before the first frame, which must be SETTINGS, and net/http sees to that.
	beforeSettings
	betweenFrames
	// inHeaders is within a block of headers, where only CONTINUATION may come, and net/http sees to
	// that.
	inHeaders
	// notHTTP2 is when nothing is looked at.
	notHTTP2
)

// Read implements [io.Reader].
func (in *incoming) Read(p []byte) (int, error) {
	if in.opened {
		in.opened = false
		// net/http starts a goroutine for each request, and would go on to read the next one first. So one who
		// sends requests faster than they are answered would have thousands of them begun, and resetting
		// them would not help. This lets each go as far as it gets before the next one is read.
		runtime.Gosched()
	}
	for len(in.ready) == 0 {
		if err := in.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.ready)
	in.ready = in.ready[n:]
	return n, nil
}

// next makes something ready, unless it returns an error, or found that there is nothing to pass on yet.
func (in *incoming) next() error {
	if in.nextSegment < len(in.segments) {
		segment := in.segments[in.nextSegment]
		in.ready = in.buffer()[segment.start:segment.end]
		in.nextSegment++
		return nil
	}
	least := 1
	if in.left == 0 && in.state != inPreface && in.state != notHTTP2 {
		least = frameHeaderSize
	}
	if err := in.fill(least); err != nil {
		return in.passCut(err)
	}
	switch {
	case in.left > 0:
		in.left -= in.pass(min(in.left, len(in.unread())))
	case in.state == inPreface:
		in.passPreface()
	case in.state == notHTTP2:
		in.pass(in.end - in.start)
	default:
		return in.nextFrame()
	}
	return nil
}

// nextFrame does with a frame what is to be done with it. Its header has been read.
func (in *incoming) nextFrame() error {
	frame := in.frame(in.start)
	switch in.state { //nolint:exhaustive // In the other states no frame begins, or it is the first.
	case betweenFrames:
		switch {
		case frame.kind == typePing && frame.flags&flagAck == 0 && frame.stream == 0 && frame.size() == pingSize:
			if err := in.fill(pingSize); err != nil {
				return in.passCut(err)
			}
			return in.answer([pingDataSize]byte(in.take(pingSize)[frameHeaderSize:]))
		case frame.kind == typeMerged && in.has(frame):
			in.start += frame.size()
			return nil
		case frame.isPlainData() && in.has(frame):
			in.merge(frame)
			return nil
		case frame.kind == typeHeaders:
			in.opened = true
			if frame.flags&flagEndHeaders == 0 {
				in.state = inHeaders
			}
		}
		if err := in.windows.seeIncoming(frame); err != nil {
			return err
		}
	case inHeaders:
		if frame.kind == typeContinuation && frame.flags&flagEndHeaders != 0 {
			in.state = betweenFrames
		}
	default:
		in.state = betweenFrames
	}
	in.left = frame.size()
	in.left -= in.pass(min(in.left, len(in.unread())))
	return nil
}

// merge passes on a DATA frame, and with it the payloads of those after it of the same stream.
func (in *incoming) merge(first frame) {
	buffer := in.buffer()
	in.segments, in.nextSegment = in.segments[:0], 0
	length, flags := first.length, first.flags
	at := in.start + first.size()
	for range lookFrames {
		if at+frameHeaderSize > in.end || flags&flagEndStream != 0 || len(in.segments) == mergeFrames {
			break
		}
		frame := in.frame(at)
		if at+frame.size() > in.end {
			break
		}
		if frame.stream == first.stream && frame.kind == typeData {
			if !frame.isPlainData() || length+frame.length > mergeBytes {
				break
			}
			length += frame.length
			flags |= frame.flags
			buffer[at+3] = typeMerged
			in.segments = append(in.segments, segment{at + frameHeaderSize, at + frame.size()})
		} else if frame.mayEndMerge() {
			break
		}
		at += frame.size()
	}
	_ = in.windows.seeIncoming(frame{length: length, kind: typeData, flags: flags, stream: first.stream}) // That is no error.
	buffer[in.start], buffer[in.start+1], buffer[in.start+2] = byte(length>>16), byte(length>>8), byte(length)
	buffer[in.start+4] = flags
	in.pass(first.size())
}

// passPreface passes on what may be the preface of HTTP/2, or finds that it is not.
func (in *incoming) passPreface() {
	count := min(len(preface)-in.matched, len(in.unread()))
	if string(in.unread()[:count]) != preface[in.matched:in.matched+count] {
		in.state = notHTTP2
		return
	}
	in.pass(count)
	if in.matched += count; in.matched == len(preface) {
		in.state = beforeSettings
	}
}

// passCut passes on what came of a frame before the end of the connection.
func (in *incoming) passCut(err error) error {
	if !errors.Is(err, io.EOF) || len(in.unread()) == 0 {
		return err
	}
	in.pass(in.end - in.start)
	return nil
}

// pass makes the next count bytes ready, and returns count.
func (in *incoming) pass(count int) int {
	in.ready = in.take(count)
	return count
}

// frame is the header of a frame.
type frame struct {
	length      int
	kind, flags byte
	stream      uint32
}

// frame returns the header of a frame in the buffer.
func (in *incoming) frame(at int) frame {
	header := in.buffer()[at : at+frameHeaderSize]
	return frame{
		length: int(header[0])<<16 | int(header[1])<<8 | int(header[2]),
		kind:   header[3],
		flags:  header[4],
		stream: binary.BigEndian.Uint32(header[5:]) &^ (1 << 31), // The first bit is reserved.
	}
}

// has returns whether all of the next frame has been read.
func (in *incoming) has(next frame) bool {
	return len(in.unread()) >= next.size()
}

func (f frame) size() int {
	return frameHeaderSize + f.length
}

// isPlainData returns whether the payload is DATA from its start to its end, without padding.
func (f frame) isPlainData() bool {
	return f.kind == typeData && f.flags&^flagEndStream == 0
}

// mayEndMerge returns whether what comes after this frame, which is not DATA of the stream in question,
// must not be passed on before it.
func (f frame) mayEndMerge() bool {
	switch f.kind {
	case typeData:
		return f.stream == 0
	case typePing, typeWindowUpdate, typeMerged:
		return false
	default:
		return true
	}
}
