package wire

import "encoding/binary"

// outgoing follows the frames that are written to a connection of HTTP/2, to know where another one may come.
// What is written at once may end within a frame. The zero value is before the first one.
type outgoing struct {
	header     [frameHeaderSize]byte
	headerSize int // how much of a header was written
	left       int // how much of a payload is yet to be written
	begun      bool
	inHeaders  bool // only CONTINUATION may come (https://www.rfc-editor.org/rfc/rfc9113#section-6.10)
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
			switch o.header[3] {
			case typeHeaders, typePushPromise, typeContinuation:
				o.inHeaders = o.header[4]&flagEndHeaders == 0
			}
		}
	}
}
