package wire

import (
	"net/http"
	"sync"
)

const (
	// prefixSize is what precedes a message in a stream: a byte of flags, which is 0 for a message that
	// is not compressed, and the length of the message in four bytes, big-endian. It is the same in
	// gRPC (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), gRPC-Web and Connect
	// (https://connectrpc.com/docs/protocol#streaming-rpcs). A message need not be compressed
	// whatever compression was agreed on.
	prefixSize = 5
	// gatherBytes is how much is gathered before it is written.
	gatherBytes = 32 << 10
)

var buffers = sync.Pool{New: func() any {
	buffer := make([]byte, 0, gatherBytes)
	return &buffer
}}

// Envelopes writes messages that are encoded already into the response of a stream. It gathers them, and
// writes when many have come together, or on Flush. It is not safe for concurrent use, and must not be
// used once the HTTP handler has returned.
//
// Between a Flush and the next message it holds no memory.
type Envelopes struct {
	stream *Stream
	buffer *[]byte // nil if nothing is gathered
}

// Envelopes returns a writer of frames. Its second result is false if the stream's messages are not
// binary Protobuf, or not in frames; then messages have to be sent by Connect.
//
// The headers of the response must have been sent before the first frame is written, with
// Connect's Send(nil); and of frames and Connect's Send, only one may be in use at a time.
func (s *Stream) Envelopes() (*Envelopes, bool) {
	_, flushes := s.response.(http.Flusher)
	return &Envelopes{stream: s}, s.binary && flushes
}

// Write adds an encoded message. It writes what is gathered if that is much, and then returns the error
// of that. The message is copied.
func (f *Envelopes) Write(message []byte) error {
	if f.buffer == nil {
		f.buffer, _ = buffers.Get().(*[]byte)
	}
	if len(*f.buffer) > 0 && len(*f.buffer)+prefixSize+len(message) > gatherBytes {
		if err := f.write(); err != nil {
			return err
		}
	}
	length := uint32(len(message))
	prefix := [prefixSize]byte{1: byte(length >> 24), 2: byte(length >> 16), 3: byte(length >> 8), 4: byte(length)}
	*f.buffer = append(append(*f.buffer, prefix[:]...), message...)
	return nil
}

// Flush writes what is gathered to the client.
func (f *Envelopes) Flush() error {
	if f.buffer == nil {
		return nil
	}
	err := f.write()
	if cap(*f.buffer) <= 2*gatherBytes {
		buffers.Put(f.buffer)
	}
	f.buffer = nil
	if err != nil {
		return err
	}
	return f.stream.controller.Flush()
}

// write writes what is gathered, as far as the connection takes it.
func (f *Envelopes) write() error {
	_, err := f.stream.response.Write(*f.buffer)
	*f.buffer = (*f.buffer)[:0]
	return err
}
