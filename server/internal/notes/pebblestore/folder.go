package pebblestore

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"example.com/routeguide/server/internal/notes"
)

// lockName is the name of the file by which a process has a folder to itself.
const lockName = "LOCK"

// folder is the identity of the folder of a store: the inodes of the folder and of its LOCK file. Open
// files follow a folder that is moved or deleted, so that a process would go on keeping notes where
// nobody finds them, while another process opens what is at the path now.
//
// The engine has both open, so their inode numbers are not given to others. Its methods may be called
// concurrently.
type folder struct {
	paths [2]string
	end   func(error) // ends the process
	// opened is what was at the paths when the folder was opened; nil before, and in a file system that is
	// not the operating system's.
	opened atomic.Pointer[[2]os.FileInfo]
	// seen is when it was last there, in nanoseconds since 1970.
	seen atomic.Int64
	away atomic.Bool // when it was last looked at
}

func newFolder(dir string, end func(error)) *folder {
	return &folder{paths: [2]string{dir, filepath.Join(dir, lockName)}, end: end}
}

// remember takes what is at the paths for what was opened.
func (f *folder) remember(fs vfs.FS) error {
	if vfs.Root(fs) != vfs.Default {
		return nil
	}
	var opened [2]os.FileInfo
	for i, path := range f.paths {
		var err error
		if opened[i], err = os.Stat(path); err != nil {
			return err
		}
	}
	f.opened.Store(&opened)
	return f.look()
}

// look returns an error that is [notes.ErrUnavailable] while the folder is not at its path. If another one
// is there, it ends the process. It costs two system calls, about 2 microseconds.
func (f *folder) look() error {
	opened := f.opened.Load()
	if opened == nil {
		return nil
	}
	for i, path := range f.paths {
		now, err := os.Stat(path)
		if err != nil {
			f.away.Store(true)
			return fmt.Errorf("%w: %w", notes.ErrUnavailable, err)
		}
		if !os.SameFile(now, opened[i]) {
			f.end(fmt.Errorf("the folder of notes %s was replaced while this process had it open: %s is not what was opened; "+
				"notes that were answered since %s, when the folder was last seen in place, may be lost",
				f.paths[0], path, time.Unix(0, f.seen.Load()).Format("2006-01-02T15:04:05.000Z07:00")))
		}
	}
	f.seen.Store(notes.Now())
	f.away.Store(false)
	return nil
}
