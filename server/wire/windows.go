package wire

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
)

// StreamBuffer is what net/http is to allow a client to send on a stream before it is read, as
// HTTP2Config.MaxReceiveBufferPerStream, where [NewListener] is given a window for streams: so much that net/http
// never has to give any of it back.
const StreamBuffer = 1 << 30

// windows says how much a client may send on each stream of a connection before it is read
// (https://www.rfc-editor.org/rfc/rfc9113#section-5.2).
//
// net/http queues what it gives back of a stream's window behind the DATA of the same stream. To a client that writes
// without reading it would never come, once the client's own window is full, and the two directions of a stream
// would not be independent. If the window were so large that this does not matter, the DATA of a stream that the
// handler does not read would fill the window of the connection, and all other streams would wait.
//
// So net/http has a large window, of which it is none of the client's business what is given back; the client is told
// of a small one, and gets it back from here. What was read of all streams together is known, since net/http gives that
// back to the connection's window at once. While little is unread on a connection, each stream gets back what it has
// used. Once more is, since some streams are not read, a stream gets back what net/http would give it.
type windows struct {
	size int

	mu      sync.Mutex // guards the rest
	most    int        // how many streams may be open before the connection ends
	unread  int        // DATA that came in and was not given back to the window of the connection
	last    uint32     // the last stream that the client has opened
	open    map[uint32]*window
	lagging map[uint32]*window // those of which much was not given back
}

// window is that of a stream on which the client may still send. All are bytes of DATA.
type window struct {
	received int
	read     int // was read, and net/http would give it back
	returned int // was given back
}

const (
	// returnPart is the part of a window that must be used for it to be given back.
	returnPart = 4
	// littleUnread is how many windows of streams may be unread on a connection for that to be little.
	littleUnread = 2
	// passedOver is how many streams a client may open beyond those that net/http lets it have. As many it may be
	// about to refuse. More come when it has sent GOAWAY, or cannot, and passes them over in silence: then who goes on
	// opening them is not listened to any more.
	passedOver = 10_000
)

var errPassedOver = errors.New("the client opens streams that nobody answers")

func newWindows(size int) *windows {
	return &windows{size: size, most: passedOver, open: make(map[uint32]*window), lagging: make(map[uint32]*window)}
}

// What matters of settings (https://www.rfc-editor.org/rfc/rfc9113#section-6.5).
const (
	settingSize                 = 6
	settingMaxConcurrentStreams = 0x3
	settingInitialWindowSize    = 0x4
)

// announce returns what is to be written in place of the first bytes of a connection, which are net/http's
// settings: it is as long, and says how large the window of a stream is. It returns false if net/http has no large
// window: then there is nothing to be done on this connection.
func (w *windows) announce(first []byte) (_ []byte, ok bool) {
	if len(first) < frameHeaderSize || first[3] != typeSettings {
		return first, false
	}
	end := frameHeaderSize + int(binary.BigEndian.Uint32(first)>>8)
	if end > len(first) {
		return first, false
	}
	changed := slices.Clone(first)
	for setting := changed[frameHeaderSize:end]; len(setting) >= settingSize; setting = setting[settingSize:] {
		value := binary.BigEndian.Uint32(setting[2:])
		switch binary.BigEndian.Uint16(setting) {
		case settingInitialWindowSize:
			if ok = value >= StreamBuffer; ok {
				binary.BigEndian.PutUint32(setting[2:], uint32(w.size))
			}
		case settingMaxConcurrentStreams:
			w.setMost(int(value) + passedOver)
		}
	}
	return changed, ok
}

// seeIncoming takes note of a frame that the client has sent. After an error nothing more is to be read.
func (w *windows) seeIncoming(frame frame) error {
	if w == nil {
		return nil
	}
	ended := frame.flags&flagEndStream != 0
	switch frame.kind {
	case typeData:
		w.received(frame.stream, frame.length, ended)
	case typeHeaders:
		return w.begins(frame.stream, ended)
	case typeReset:
		w.ends(frame.stream)
	}
	return nil
}

func (w *windows) setMost(most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.most = most
}

// begins says that the client has sent HEADERS.
func (w *windows) begins(stream uint32, ended bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ended {
		w.remove(stream)
	}
	if stream <= w.last {
		return nil
	}
	w.last = stream
	if ended {
		return nil
	}
	if len(w.open) >= w.most {
		return errPassedOver
	}
	w.open[stream] = &window{}
	return nil
}

// ends says that the client may not send any more on a stream, or does not want to.
func (w *windows) ends(stream uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(stream)
}

func (w *windows) remove(stream uint32) {
	delete(w.open, stream)
	delete(w.lagging, stream)
}

// received says that DATA has come in.
func (w *windows) received(stream uint32, length int, ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unread += length
	if ended {
		w.remove(stream)
		return
	}
	if window := w.open[stream]; window != nil {
		window.received += length
		if window.received-window.returned >= w.size/returnPart {
			w.lagging[stream] = window
		}
	}
}

// returns says that net/http gives something back to the window of a stream, which the client is not to see, or, with
// 0, to that of the connection. It returns whether append may have something to give back.
func (w *windows) returns(stream uint32, length int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if stream == 0 {
		w.unread = max(0, w.unread-length) // At first it is given more than it has at the beginning.
	} else if window := w.open[stream]; window != nil {
		window.read += length
	}
	return len(w.lagging) > 0
}

// append appends the frames that give back what is to be given back now.
func (w *windows) append(frames []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	for stream, window := range w.lagging {
		until := window.received
		if w.unread >= littleUnread*w.size {
			until = window.read
		}
		length := until - window.returned
		if length < w.size/returnPart {
			continue
		}
		window.returned = until
		delete(w.lagging, stream)
		frames = append(frames, 0, 0, windowUpdateSize-frameHeaderSize, typeWindowUpdate, 0)
		frames = binary.BigEndian.AppendUint32(frames, stream)
		frames = binary.BigEndian.AppendUint32(frames, uint32(length))
	}
	return frames
}

const windowUpdateSize = frameHeaderSize + 4
