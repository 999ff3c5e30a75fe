package h2

import (
	"io"
	"sync"
)

// buffered is a buffered reader that adapts its buffer to the traffic: small while the peer is quiet, and large,
// from a pool, while it is busy. Most connections and requests are quiet, and cost little memory.
type buffered struct {
	from  io.Reader
	small []byte     // buffer while large is nil
	large *[]byte    // buffer from the pool
	pool  *sync.Pool // of large buffers

	start, end int // bounds of the unread bytes in the buffer
	lastRead   int // bytes of the last read
}

// minLargeFill is the fraction of the large buffer, 1/minLargeFill, that a read must fill for it to be kept.
const minLargeFill = 8

// newPool returns a pool of large buffers of a size in bytes.
func newPool(size int) *sync.Pool {
	return &sync.Pool{New: func() any {
		buffer := make([]byte, size)
		return &buffer
	}}
}

func (b *buffered) buffer() []byte {
	if b.large != nil {
		return *b.large
	}
	return b.small
}

// unread returns the unread bytes. They are valid until fill.
func (b *buffered) unread() []byte {
	return b.buffer()[b.start:b.end]
}

// take consumes and returns the next count bytes, which must be buffered. They are valid until fill.
func (b *buffered) take(count int) []byte {
	taken := b.buffer()[b.start : b.start+count]
	b.start += count
	return taken
}

// fill reads until at least minBytes are unread. minBytes must not exceed the size of the large buffer.
func (b *buffered) fill(minBytes int) error {
	for b.end-b.start < minBytes {
		if b.start == b.end {
			b.start, b.end = 0, 0
			b.shrink()
		}
		buffer := b.buffer()
		if b.start > 0 {
			b.end = copy(buffer, buffer[b.start:b.end])
			b.start = 0
		}
		n, err := b.from.Read(buffer[b.end:])
		b.end += n
		if n == 0 && err != nil {
			return err
		}
		b.grow(n)
	}
	return nil
}

// grow replaces a full small buffer by a large one. n is the number of bytes of the last read.
func (b *buffered) grow(n int) {
	b.lastRead = n
	if b.large == nil && b.end == len(b.small) {
		b.large, _ = b.pool.Get().(*[]byte)
		copy(*b.large, b.small[:b.end])
		b.lastRead = len(*b.large) // The small buffer limited the read: assume a busy peer.
	}
}

// shrink returns an empty large buffer to the pool, unless the last read filled so much of it that the next one
// will probably, too. An idle stream keeps a large buffer only if its last read was large.
func (b *buffered) shrink() {
	if b.large != nil && b.lastRead < len(*b.large)/minLargeFill {
		b.pool.Put(b.large)
		b.large = nil
	}
}
