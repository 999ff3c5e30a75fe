package wire

import "encoding/binary"

// outgoing follows the frames that are written to a connection of HTTP/2, to know where one ends. What
// is written at once may end within a frame. The zero value is before the first one.
type outgoing struct {
	header     [frameHeaderSize]byte
	headerSize int // how much of a header was written
	left       int // how much of a payload is yet to be written
	begun      bool
}

// betweenFrames returns whether a frame may be written. The first one must be net/http's SETTINGS.
func (o *outgoing) betweenFrames() bool {
	return o.begun && o.headerSize == 0 && o.left == 0
}

// follow takes note of what is written.
func (o *outgoing) follow(p []byte) {
	o.begun = o.begun || len(p) > 0
	for len(p) > 0 {
		if o.left > 0 {
			n := min(o.left, len(p))
			o.left -= n
			p = p[n:]
			continue
		}
		n := copy(o.header[o.headerSize:], p)
		o.headerSize += n
		p = p[n:]
		if o.headerSize == frameHeaderSize {
			o.headerSize = 0
			o.left = int(binary.BigEndian.Uint32(o.header[:]) >> 8)
		}
	}
}
