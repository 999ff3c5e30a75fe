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

// lockName is the name of Pebble's lock file.
const lockName = "LOCK"

// folder detects that the folder of an open store was moved, deleted or replaced. Without it, a process would go on
// writing to open files that are no longer at the path, while another process opens the folder that is there now.
//
// It compares the inode of LOCK: another folder has another LOCK. Periodically it compares the inode of the folder, too,
// for two cases that LOCK misses: a copy made with hard links, which shares LOCK's inode, and an empty folder, which has
// no LOCK (then the store is only unavailable).
//
// The engine holds both open, so their inode numbers are not reused. Its methods may be called concurrently.
type folder struct {
	dir, lock string      // paths
	fatal     func(error) // ends the process
	// opened are the inodes at the paths when the store was opened; nil before, and in a file system that is not
	// the operating system's.
	opened   atomic.Pointer[inodes]
	lastSeen atomic.Int64 // time of the last checkDir without error, in nanoseconds since 1970
	missing  atomic.Bool  // result of the last check
}

type inodes struct{ dir, lock os.FileInfo }

func newFolder(dir string, fatal func(error)) *folder {
	return &folder{dir: dir, lock: filepath.Join(dir, lockName), fatal: fatal}
}

// pin records the inodes of the folder that was opened.
func (f *folder) pin(fs vfs.FS) error {
	if vfs.Root(fs) != vfs.Default {
		return nil
	}
	dir, err := os.Stat(f.dir)
	if err != nil {
		return err
	}
	lock, err := os.Stat(f.lock)
	if err != nil {
		return err
	}
	f.opened.Store(&inodes{dir, lock})
	return f.checkDir()
}

// check compares LOCK. It returns an error that is [notes.ErrUnavailable] while there is none at its path, and ends
// the process if there is another one. It costs one stat call, about 1 microsecond.
func (f *folder) check() error {
	opened := f.opened.Load()
	if opened == nil {
		return nil
	}
	if err := f.compare(f.lock, opened.lock); err != nil {
		return err
	}
	f.missing.Store(false)
	return nil
}

// checkDir compares the folder, and then LOCK as check does.
func (f *folder) checkDir() error {
	if opened := f.opened.Load(); opened != nil {
		if err := f.compare(f.dir, opened.dir); err != nil {
			return err
		}
	}
	now := notes.Now()
	if err := f.check(); err != nil {
		return err
	}
	f.lastSeen.Store(now)
	return nil
}

func (f *folder) compare(path string, opened os.FileInfo) error {
	current, err := os.Stat(path)
	if err != nil {
		f.missing.Store(true)
		return fmt.Errorf("%w: %w", notes.ErrUnavailable, err)
	}
	if !os.SameFile(current, opened) {
		f.fatal(fmt.Errorf("the folder of notes %s was replaced while it was open: %s has another inode "+
			"(notes answered since the last successful check, at %s, may be lost)",
			f.dir, path, time.Unix(0, f.lastSeen.Load()).Format("2006-01-02T15:04:05.000Z07:00")))
	}
	return nil
}
