package pebblestore

import (
	"errors"
	"io/fs"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// retryInterval is the interval between two attempts while the disk is full or the folder missing.
const retryInterval = 100 * time.Millisecond

// retryFS is a file system that blocks and retries writes while the disk is full or the folder is missing:
// the engine cannot go on after such an error. [vfs.OnDiskFull] is not enough: it retries once, and treats an
// exceeded quota (EDQUOT) as a broken disk.
type retryFS struct {
	vfs.FS

	space *space
}

// Unwrap implements [vfs.FS].
func (r retryFS) Unwrap() vfs.FS { return r.FS }

func (r retryFS) open(open func() (vfs.File, error)) (file vfs.File, err error) {
	err = r.space.retry(func() error {
		file, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return retryFile{file, r.space}, nil
}

// Create implements [vfs.FS].
func (r retryFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return r.open(func() (vfs.File, error) { return r.FS.Create(name, category) })
}

// Open implements [vfs.FS].
func (r retryFS) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	return r.open(func() (vfs.File, error) { return r.FS.Open(name, options...) })
}

// OpenReadWrite implements [vfs.FS].
func (r retryFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return r.open(func() (vfs.File, error) { return r.FS.OpenReadWrite(name, category, options...) })
}

// ReuseForWrite implements [vfs.FS].
func (r retryFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return r.open(func() (vfs.File, error) { return r.FS.ReuseForWrite(oldname, newname, category) })
}

// Link implements [vfs.FS].
func (r retryFS) Link(oldname, newname string) error {
	return r.space.retry(func() error { return r.FS.Link(oldname, newname) })
}

// Rename implements [vfs.FS].
func (r retryFS) Rename(oldname, newname string) error {
	return r.space.retry(func() error { return r.FS.Rename(oldname, newname) })
}

// retryFile is a file of a retryFS. A failed sync is never retried: the operating system may have dropped the
// dirty pages.
type retryFile struct {
	vfs.File

	space *space
}

// Write implements [vfs.File].
func (r retryFile) Write(bytes []byte) (written int, err error) {
	err = r.space.retry(func() error {
		count, err := r.File.Write(bytes[written:])
		written += count
		return err
	})
	return written, err
}

// WriteAt implements [vfs.File].
func (r retryFile) WriteAt(bytes []byte, offset int64) (written int, err error) {
	err = r.space.retry(func() error {
		count, err := r.File.WriteAt(bytes[written:], offset+int64(written))
		written += count
		return err
	})
	return written, err
}

// retry calls operation until it succeeds or fails with an error that will not pass, or until the deadline of
// Close.
func (s *space) retry(operation func() error) error {
	err := operation()
	for !s.closeDeadlinePassed() {
		switch {
		case isFull(err):
			err = s.retryWhileFull(operation, err)
		case errors.Is(err, fs.ErrNotExist) && s.folder.check() != nil:
			time.Sleep(retryInterval)
			err = operation()
		default:
			return err
		}
	}
	return err
}

// retryWhileFull retries operation, which has failed with err, while the disk is full. No notes are accepted
// meanwhile.
func (s *space) retryWhileFull(operation func() error, err error) error {
	s.addBlocked(1)
	defer s.addBlocked(-1)
	s.check(s.folder.check())
	for isFull(err) && !s.closeDeadlinePassed() {
		time.Sleep(retryInterval)
		usage, usageErr := s.fs.GetDiskUsage(s.dir)
		// Leave half of the reserve to compactions. A quota or a lack of inodes does not show in the disk
		// usage.
		if usageErr != nil || usage.AvailBytes > reserve(usage)/2 {
			err = operation()
		}
	}
	return err
}

// isFull returns whether err is a full disk or an exceeded quota.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (s *space) addBlocked(count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked += count
}
