package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A filter is a split-block Bloom filter of the locations of an epoch, by their numbers in Z-order: it never misses one,
// and has one that was not added with a probability of at most 0.1 % when it is full. With it, the first
// note of a location is known as such without a read of the disk. The formula is that of Apache Parquet
// (BloomFilter.md): each number sets one bit in each of the eight lanes of one block of 32 bytes, a single cache line.
//
// A filter without words has every location: the notes could not be read.
//
// Has may be called concurrently with one add.
type filter struct {
	words []uint64 // four a block
	saved bool     // the words are those of the file, mapped into memory until the filter is garbage
}

const (
	blockWords   = 4
	locationBits = 17
)

// filterWords returns the size of a filter of a number of locations.
func filterWords(locations int) int {
	return (locations*locationBits/(64*blockWords) + 1) * blockWords
}

func newFilter(locations int) *filter {
	return &filter{words: make([]uint64, filterWords(locations))}
}

// salts are the multipliers of the eight lanes.
var salts = [8]uint32{0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31}

// probe is a number as filters of any size look it up.
type probe struct {
	block uint64             // the block in 2^64 blocks
	mask  [blockWords]uint64 // bits that are set in the block
}

func probeOf(z uint64) (p probe) {
	// Finalizer of splitmix64: Z-order numbers that are close to each other have much in common.
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	p.block = z &^ (1<<32 - 1)
	for lane, salt := range salts {
		p.mask[lane/2] |= 1 << (uint32(z)*salt>>27 + uint32(lane%2)*32)
	}
	return p
}

// block returns the block of a number.
func (f *filter) block(p *probe) *[blockWords]uint64 {
	block, _ := bits.Mul64(p.block, uint64(len(f.words)/blockWords))
	return (*[blockWords]uint64)(f.words[block*blockWords:])
}

func (f *filter) add(z uint64) {
	if f.words == nil {
		return
	}
	p := probeOf(z)
	block := f.block(&p)
	for i, bits := range p.mask {
		if old := block[i]; old|bits != old { // There is one writer.
			atomic.StoreUint64(&block[i], old|bits)
		}
	}
}

func (f *filter) has(z uint64) bool {
	p := probeOf(z)
	return f.matches(&p)
}

// matches returns whether the filter has a number.
func (f *filter) matches(p *probe) bool {
	if f.words == nil {
		return true
	}
	block := f.block(p)
	missing := uint64(0)
	for i := range block {
		missing |= p.mask[i] &^ atomic.LoadUint64(&block[i])
	}
	runtime.KeepAlive(f) // It was mapped so far.
	return missing == 0
}

// The file of a filter is its head and its words, in the byte order of the machine: it is mapped into memory. A file
// of another machine is as good as a damaged one: the filter is built again.
const (
	filterMagic = 0x7265746c69662031 // "1 filter"
	filterHead  = 32                 // magic(8) epoch(8) first position(8) CRC-32C of the rest and the words(8)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// bytes returns the memory of the words.
func (f *filter) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&f.words[0])), len(f.words)*8)
}

// head returns the head of the file of an epoch.
func (f *filter) head(epoch *epoch) []byte {
	head := make([]byte, 0, filterHead)
	head = binary.NativeEndian.AppendUint64(head, filterMagic)
	head = binary.NativeEndian.AppendUint64(head, uint64(epoch.number))
	head = binary.NativeEndian.AppendUint64(head, uint64(epoch.first))
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, f.bytes())
	return binary.NativeEndian.AppendUint64(head, uint64(sum))
}

// filterName returns the path of the file of an epoch's filter.
func filterName(fs vfs.FS, dir string, epoch *epoch) string {
	return fs.PathJoin(dir, fmt.Sprintf("locations-%08d.bloom", epoch.number))
}

// saveBytes is the size of a write to a file.
const saveBytes = 256 << 10

// temporary is the suffix of the name of a file that is being written.
const temporary = ".tmp"

// save writes the file of a complete epoch's filter. It appears under its name once it is on the disk.
func (f *filter) save(fs vfs.FS, dir string, epoch *epoch) error {
	name := filterName(fs, dir, epoch)
	file, err := fs.Create(name+temporary, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	buffer := f.head(epoch)
	for chunk := range slices.Chunk(f.bytes(), saveBytes) {
		buffer = append(buffer, chunk...) // A file may change what it is given to write.
		if _, err = file.Write(buffer); err != nil {
			break
		}
		buffer = buffer[:0]
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = fs.Rename(name+temporary, name)
	}
	if err != nil {
		return errors.Join(err, fs.Remove(name+temporary))
	}
	folder, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

var errFilter = errors.New("the file of the filter is damaged")

// loadFilter reads the file of an epoch's filter, which is for a number of locations.
func loadFilter(fs vfs.FS, dir string, epoch *epoch, locations int) (*filter, error) {
	name := filterName(fs, dir, epoch)
	var content []byte
	unmap := func() error { return nil }
	var err error
	if vfs.Root(fs) == vfs.Default {
		content, unmap, err = mapFile(name)
	} else {
		content, err = readFile(fs, name)
	}
	if err != nil {
		return nil, err
	}
	if size := filterWords(locations); len(content) == filterHead+size*8 {
		words := unsafe.Slice((*uint64)(unsafe.Pointer(&content[filterHead])), size)
		if loaded := (&filter{words, true}); string(content[:filterHead]) == string(loaded.head(epoch)) {
			// Readers may have the filter of an epoch that is dropped.
			runtime.AddCleanup(loaded, func(unmap func() error) { _ = unmap() }, unmap)
			return loaded, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("%w: %s", errFilter, name), unmap())
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	file, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(file)
	return content, errors.Join(err, file.Close())
}
