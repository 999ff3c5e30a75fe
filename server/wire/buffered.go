package wire

import (
	"io"
	"sync"
)

// buffered is a reader with a buffer that is small while little comes, and large while much does: of
// the many that there are, most are silent.
type buffered struct {
	from io.Reader
	// small is the buffer, unless large is one from the pool.
	small []byte
	large *[]byte
	pool  *sync.Pool

	start, end int // of what has been read and not been taken
	last       int // how much the last read has brought
}

// rush is the part of a large buffer that a read must bring for the next one to be large, too.
const rush = 8

// newPool returns a pool of large buffers.
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

// unread returns what has been read and not been taken. It is valid until fill.
func (b *buffered) unread() []byte {
	return b.buffer()[b.start:b.end]
}

// take takes the next count bytes, which must have been read. They are valid until fill.
func (b *buffered) take(count int) []byte {
	taken := b.buffer()[b.start : b.start+count]
	b.start += count
	return taken
}

// fill reads until there are at least some bytes. That must be no more than a small buffer holds.
func (b *buffered) fill(least int) error {
	for b.end-b.start < least {
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
		b.resize(n)
	}
	return nil
}

// resize chooses the buffer for the next read by how much the last one has brought.
func (b *buffered) resize(n int) {
	b.last = n
	if b.large == nil && b.end == len(b.small) {
		b.large, _ = b.pool.Get().(*[]byte)
		copy(*b.large, b.small[:b.end])
		b.last = len(*b.large) // There may be any amount more.
	}
}

// shrink gives the large buffer back, which is empty, unless the last read has brought so much that the next one
// will bring much, too. So a stream that has fallen silent holds it only if it has fallen silent in a rush.
func (b *buffered) shrink() {
	if b.large != nil && b.last < len(*b.large)/rush {
		b.pool.Put(b.large)
		b.large = nil
	}
}
