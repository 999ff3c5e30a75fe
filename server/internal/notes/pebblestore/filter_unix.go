//go:build unix

package pebblestore

import (
	"errors"
	"os"
	"syscall"
)

// mapFile maps a file into memory, outside of Go's heap: the operating system keeps what is used, and can take the rest
// back.
func mapFile(name string) (content []byte, unmap func() error, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if info.Size() < filterHead {
		return nil, nil, errors.Join(errFilter, &os.PathError{Op: "map", Path: name, Err: syscall.EINVAL})
	}
	content, err = syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	return content, func() error { return syscall.Munmap(content) }, err
}
