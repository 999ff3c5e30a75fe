package h2

import "sync"

// smallBytes is the buffer within a stream, in bytes: enough for a client that sends one small message at a time.
const smallBytes = 128

// The sizes of the buffers for DATA, in bytes, with a pool each.
const (
	buffer1K  = 1 << 10
	buffer8K  = 8 << 10
	buffer64K = 64 << 10
)

var (
	pool1K  = sync.Pool{New: func() any { return new([buffer1K]byte) }}
	pool8K  = sync.Pool{New: func() any { return new([buffer8K]byte) }}
	pool64K = sync.Pool{New: func() any { return new([buffer64K]byte) }}
)

// appendBuffer appends data to what a buffer holds from at on, and returns it from the start of the buffer, which is another one if it
// did not fit.
func (s *stream) appendBuffer(buffer []byte, at int, data []byte) []byte {
	size := len(buffer) - at + len(data)
	if at == 0 && size <= cap(buffer) {
		return append(buffer, data...)
	}
	if size <= cap(buffer) {
		n := copy(buffer, buffer[at:])
		return append(buffer[:n], data...)
	}
	larger := append(append(s.getBuffer(size), buffer[at:]...), data...)
	s.putBuffer(buffer)
	return larger
}

// getBuffer returns an empty buffer with a capacity of at least size.
func (s *stream) getBuffer(size int) []byte {
	switch {
	case size <= smallBytes && !s.isSmall(s.arrived) && !s.isSmall(s.reading):
		return s.smallBody[:0]
	case size <= buffer1K:
		buffer, _ := pool1K.Get().(*[buffer1K]byte)
		return buffer[:0]
	case size <= buffer8K:
		buffer, _ := pool8K.Get().(*[buffer8K]byte)
		return buffer[:0]
	case size <= buffer64K:
		buffer, _ := pool64K.Get().(*[buffer64K]byte)
		return buffer[:0]
	default:
		return make([]byte, 0, size)
	}
}

// putBuffer returns a buffer to its pool.
func (s *stream) putBuffer(buffer []byte) {
	switch cap(buffer) {
	case buffer1K:
		pool1K.Put((*[buffer1K]byte)(buffer[:buffer1K]))
	case buffer8K:
		pool8K.Put((*[buffer8K]byte)(buffer[:buffer8K]))
	case buffer64K:
		pool64K.Put((*[buffer64K]byte)(buffer[:buffer64K]))
	}
}

// isSmall reports whether a buffer is the one within the stream.
func (s *stream) isSmall(buffer []byte) bool {
	return cap(buffer) == smallBytes && &buffer[:smallBytes][0] == &s.smallBody[0]
}
