package wire

import (
	"net/http"
	"sync"
)

const (
	// prefixSize is the size of an envelope's prefix in bytes: one byte of flags, which is 0 for a message that
	// is not compressed, and the length of the message in four bytes, big-endian. It is the same in
	// gRPC (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md), gRPC-Web and Connect
	// (https://connectrpc.com/docs/protocol#streaming-rpcs). A message need not be compressed, whatever
	// compression was negotiated.
	prefixSize = 5
	// writeBufferBytes is the size of the write buffer in bytes.
	writeBufferBytes = 32 << 10
)

var writeBuffers = sync.Pool{New: func() any {
	buffer := make([]byte, 0, writeBufferBytes)
	return &buffer
}}

// Envelopes writes encoded messages into the response of a stream, each as an envelope: a length-prefixed
// message. Writes are buffered until the buffer is full, or until Flush. Envelopes is not safe for concurrent
// use, and must not be used after the HTTP handler has returned.
//
// Between a Flush and the next Write it holds no buffer.
type Envelopes struct {
	stream *Stream
	buffer *[]byte // from writeBuffers; nil if nothing is buffered
}

// Envelopes returns a writer of envelopes. It returns false if the stream's messages are not binary Protobuf in
// envelopes; then the handler must send messages by Connect.
//
// The response headers must be sent before the first envelope, with Connect's Send(nil). Envelopes and Connect's
// Send must not be in use at the same time.
func (s *Stream) Envelopes() (*Envelopes, bool) {
	_, flushes := s.response.(http.Flusher)
	return &Envelopes{stream: s}, s.binary && flushes
}

// Write buffers copies of encoded messages. It writes the buffer first whenever a message does not fit, and
// returns the error of that write.
func (e *Envelopes) Write(messages ...[]byte) error {
	if e.buffer == nil {
		e.buffer, _ = writeBuffers.Get().(*[]byte)
	}
	buffer := *e.buffer
	for _, message := range messages {
		if len(buffer) > 0 && len(buffer)+prefixSize+len(message) > writeBufferBytes {
			*e.buffer = buffer
			if err := e.writeBuffer(); err != nil {
				return err
			}
			buffer = *e.buffer
		}
		buffer = AppendEnvelope(buffer, message)
	}
	*e.buffer = buffer
	return nil
}

// TryWrite writes an encoded message to the client without blocking. It returns false, and writes nothing, in the cases of
// [Batch.TryWrite], and if messages are buffered or this one does not fit into the buffer.
func (e *Envelopes) TryWrite(message []byte) bool {
	queue := e.stream.Queue()
	if queue == nil || e.buffer != nil || prefixSize+len(message) > writeBufferBytes {
		return false
	}
	buffer, _ := writeBuffers.Get().(*[]byte)
	flush, ok := queue.TryWrite(AppendEnvelope((*buffer)[:0], message))
	writeBuffers.Put(buffer)
	if flush != nil {
		flush()
	}
	return ok
}

// Flush writes the buffered envelopes to the client.
func (e *Envelopes) Flush() error {
	if e.buffer == nil {
		return nil
	}
	err := e.writeBuffer()
	if cap(*e.buffer) <= 2*writeBufferBytes {
		writeBuffers.Put(e.buffer)
	}
	e.buffer = nil
	if err != nil {
		return err
	}
	return e.stream.flush()
}

// writeBuffer writes the buffer and empties it, whether or not the write succeeds.
func (e *Envelopes) writeBuffer() error {
	_, err := e.stream.write(*e.buffer)
	*e.buffer = (*e.buffer)[:0]
	return err
}
