package wire

import (
	"encoding/binary"
	"slices"
)

// outgoing follows the frames that are written to a connection of HTTP/2, to know where another one may come.
// What is written at once may end within a frame. The zero value is before the first one.
type outgoing struct {
	header     [frameHeaderSize]byte
	headerSize int // how much of a header was written
	left       int // how much of a payload is yet to be written
	begun      bool
	inHeaders  bool // only CONTINUATION may come (https://www.rfc-editor.org/rfc/rfc9113#section-6.10)

	windows *windows // nil if they are left to net/http
	returns bool     // windows may have something to give back
	last    [4]byte  // the last bytes of what was written of a payload
	// back is the start of a frame that is held back until it is known whether the client is to see it.
	back     [windowUpdateSize]byte
	backSize int
}

// betweenFrames returns whether a PING may be written. The first frame must be net/http's SETTINGS.
func (o *outgoing) betweenFrames() bool {
	return o.begun && o.headerSize == 0 && o.left == 0 && !o.inHeaders
}

// follow takes note of what is written.
func (o *outgoing) follow(p []byte) {
	o.begun = o.begun || len(p) > 0
	for len(p) > 0 {
		if o.left > 0 {
			n := min(o.left, len(p))
			o.payload(p[:n])
			p = p[n:]
			continue
		}
		n := copy(o.header[o.headerSize:], p)
		o.headerSize += n
		p = p[n:]
		if o.headerSize == frameHeaderSize {
			o.headerSize = 0
			o.left = int(binary.BigEndian.Uint32(o.header[:]) >> 8)
			o.frame()
		}
	}
}

// frame takes note of a frame, whose header is complete.
func (o *outgoing) frame() {
	kind, flags := o.header[3], o.header[4]
	switch kind {
	case typeHeaders, typePushPromise, typeContinuation:
		o.inHeaders = flags&flagEndHeaders == 0
	}
	if o.windows == nil {
		return
	}
	if kind == typeReset || (kind == typeHeaders || kind == typeData) && flags&flagEndStream != 0 {
		o.windows.ends(o.stream())
	}
}

// payload takes note of a part of a payload.
func (o *outgoing) payload(p []byte) {
	o.left -= len(p)
	if o.windows == nil || o.header[3] != typeWindowUpdate || len(p)+o.left > len(o.last) {
		return
	}
	copy(o.last[len(o.last)-o.left-len(p):], p)
	if o.left == 0 && o.windows.returns(o.stream(), int(binary.BigEndian.Uint32(o.last[:]))) {
		o.returns = true
	}
}

func (o *outgoing) stream() uint32 {
	return binary.BigEndian.Uint32(o.header[5:])
}

// announce is visible for the first bytes of a connection.
func (o *outgoing) announce(first []byte) (_ []byte, isAll bool) {
	changed, ok := o.windows.announce(first)
	if !ok {
		o.windows = nil
		return first, true
	}
	return changed, false
}

// visible returns what the client is to see of p, which is to be written: all but what net/http gives back to the
// windows of streams. If that is all, it is p. Otherwise it is appended to buffer, and must be written as a whole.
func (o *outgoing) visible(p, buffer []byte) (_ []byte, isAll bool) {
	if o.windows != nil && !o.begun {
		return o.announce(p)
	}
	if o.windows == nil {
		return p, true
	}
	isAll = o.backSize == 0
	at := 0
	if isAll {
		at = o.begunFrame(p)
	} else {
		p = slices.Concat(o.back[:o.backSize], p)
		o.backSize = 0
	}
	for at < len(p) {
		size, hidden := hides(p[at:])
		if hidden && isAll {
			buffer = append(buffer, p[:at]...)
			isAll = false
		}
		end := min(at+size, len(p))
		switch {
		case hidden && end < at+size:
			o.backSize = copy(o.back[:], p[at:])
		case !hidden && !isAll:
			buffer = append(buffer, p[at:end]...)
		}
		at = end
	}
	if isAll {
		return p, true
	}
	return buffer, false
}

// begunFrame returns how much of p belongs to a frame that the client has seen the start of.
func (o *outgoing) begunFrame(p []byte) int {
	if o.headerSize == 0 {
		return min(o.left, len(p))
	}
	header := o.header
	if missing := frameHeaderSize - copy(header[o.headerSize:], p) - o.headerSize; missing > 0 {
		return len(p)
	}
	return min(frameHeaderSize-o.headerSize+int(binary.BigEndian.Uint32(header[:])>>8), len(p))
}

// hides returns how large the frame at the start of p is, and whether the client is not to see it. Of what cannot be
// told yet it is not to see anything.
func hides(p []byte) (size int, hidden bool) {
	if len(p) < frameHeaderSize {
		return frameHeaderSize, true
	}
	size = frameHeaderSize + int(binary.BigEndian.Uint32(p)>>8)
	return size, p[3] == typeWindowUpdate && size == windowUpdateSize && binary.BigEndian.Uint32(p[5:]) != 0
}
