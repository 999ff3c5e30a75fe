package wire

// AppendEnvelope appends an encoded message to a buffer, as an envelope that is not compressed.
func AppendEnvelope(buffer, message []byte) []byte {
	size := uint32(len(message))
	return append(append(buffer, 0, byte(size>>24), byte(size>>16), byte(size>>8), byte(size)), message...)
}

// MessageOf returns the message in an envelope that [AppendEnvelope] has appended to an empty buffer.
func MessageOf(envelope []byte) []byte { return envelope[prefixSize:] }

// queuer is what package h2's response writers can do.
type queuer interface {
	TryWrite(data []byte) (flush func(), ok bool)
}

// A Batch writes to many streams without waking their handlers, and flushes each connection once. The zero value is ready to use. It is
// not safe for concurrent use.
type Batch struct {
	flushes []func() // of connections
}

// TryWrite queues a copy of envelopes on a stream, for any goroutine, and does not block. It returns false, and queues nothing, if the
// handler must write them: while a write of it is in progress or buffered, before the response headers are sent, if the client's flow-control window is too
// small, and on HTTP servers other than package h2.
func (b *Batch) TryWrite(stream *Stream, envelopes []byte) bool {
	queuer, ok := stream.response.(queuer)
	if !ok {
		return false
	}
	flush, ok := queuer.TryWrite(envelopes)
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
