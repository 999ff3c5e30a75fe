package wire

// AppendEnvelope appends an encoded message to a buffer, as an envelope that is not compressed.
func AppendEnvelope(buffer, message []byte) []byte {
	size := uint32(len(message))
	return append(append(buffer, 0, byte(size>>24), byte(size>>16), byte(size>>8), byte(size)), message...)
}

// MessageOf returns the message in an envelope that [AppendEnvelope] has appended to an empty buffer.
func MessageOf(envelope []byte) []byte { return envelope[prefixSize:] }

// A Queue writes to a stream from any goroutine, as package h2's Stream does.
type Queue interface {
	TryWrite(data []byte) (flush func(), ok bool)
}

// Queue returns the queue of the stream's response, or nil on HTTP servers other than package h2.
func (s *Stream) Queue() Queue {
	queue, _ := s.response.(Queue)
	return queue
}

// A Batch writes to many streams without waking their handlers, and flushes each connection once. The zero value is ready to use. It is
// not safe for concurrent use.
type Batch struct {
	flushes []func() // of connections
}

// TryWrite queues a copy of envelopes on a stream, and does not block. It returns false, and queues nothing, if the handler must write
// them: while a write of it is in progress or buffered, before the response headers are sent, if the client's flow-control window is too
// small, and if the queue is nil.
func (b *Batch) TryWrite(queue Queue, envelopes []byte) bool {
	if queue == nil {
		return false
	}
	flush, ok := queue.TryWrite(envelopes)
	if flush != nil {
		b.flushes = append(b.flushes, flush)
	}
	return ok
}

// Flush flushes the connections of the streams that were written to.
func (b *Batch) Flush() {
	for _, flush := range b.flushes {
		flush()
	}
	clear(b.flushes)
	b.flushes = b.flushes[:0]
}
