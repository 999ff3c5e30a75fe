package pebblestore

import (
	"errors"
	"io/fs"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// retryEvery is how often an operation is tried that finds the disk full or the folder away.
const retryEvery = 100 * time.Millisecond

// patientFS is a file system whose operations wait, and are tried again, while the disk is full or the
// folder away: the engine could not go on after an error. [vfs.OnDiskFull] would try once more
// only, and takes a quota (EDQUOT) for a broken disk.
type patientFS struct {
	vfs.FS

	room *space
}

// Unwrap implements [vfs.FS].
func (p patientFS) Unwrap() vfs.FS { return p.FS }

func (p patientFS) open(open func() (vfs.File, error)) (file vfs.File, err error) {
	err = p.room.patiently(func() error {
		file, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return patientFile{file, p.room}, nil
}

// Create implements [vfs.FS].
func (p patientFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return p.open(func() (vfs.File, error) { return p.FS.Create(name, category) })
}

// Open implements [vfs.FS].
func (p patientFS) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	return p.open(func() (vfs.File, error) { return p.FS.Open(name, options...) })
}

// OpenReadWrite implements [vfs.FS].
func (p patientFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return p.open(func() (vfs.File, error) { return p.FS.OpenReadWrite(name, category, options...) })
}

// ReuseForWrite implements [vfs.FS].
func (p patientFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return p.open(func() (vfs.File, error) { return p.FS.ReuseForWrite(oldname, newname, category) })
}

// Link implements [vfs.FS].
func (p patientFS) Link(oldname, newname string) error {
	return p.room.patiently(func() error { return p.FS.Link(oldname, newname) })
}

// Rename implements [vfs.FS].
func (p patientFS) Rename(oldname, newname string) error {
	return p.room.patiently(func() error { return p.FS.Rename(oldname, newname) })
}

// patientFile is a file of a patientFS. A sync that fails is not tried again: the operating system may have
// dropped what it could not write.
type patientFile struct {
	vfs.File

	room *space
}

// Write implements [vfs.File].
func (p patientFile) Write(bytes []byte) (written int, err error) {
	err = p.room.patiently(func() error {
		count, err := p.File.Write(bytes[written:])
		written += count
		return err
	})
	return written, err
}

// WriteAt implements [vfs.File].
func (p patientFile) WriteAt(bytes []byte, offset int64) (written int, err error) {
	err = p.room.patiently(func() error {
		count, err := p.File.WriteAt(bytes[written:], offset+int64(written))
		written += count
		return err
	})
	return written, err
}

// patiently calls operation until it does not fail any more for a reason that may pass, or until Close has
// waited long enough.
func (r *space) patiently(operation func() error) error {
	err := operation()
	for !r.overdue() {
		switch {
		case isFull(err):
			err = r.whileFull(operation, err)
		case errors.Is(err, fs.ErrNotExist) && r.folder.look() != nil:
			time.Sleep(retryEvery)
			err = operation()
		default:
			return err
		}
	}
	return err
}

// whileFull calls operation, which has failed with err, again and again while the disk is full. No notes are
// taken meanwhile.
func (r *space) whileFull(operation func() error, err error) error {
	r.addStuck(1)
	defer r.addStuck(-1)
	r.check()
	for isFull(err) && !r.overdue() {
		time.Sleep(retryEvery)
		usage, unknown := r.fs.GetDiskUsage(r.dir)
		// Merges need room to go on. Where there seems to be some, a quota or a lack of inodes may have passed.
		if unknown != nil || usage.AvailBytes > reserve(usage)/2 {
			err = operation()
		}
	}
	return err
}

// isFull returns whether err says that the disk has no room, or that a quota is used up.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func (r *space) addStuck(count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stuck += count
}
