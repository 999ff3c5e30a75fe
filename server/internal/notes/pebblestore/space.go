package pebblestore

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"example.com/routeguide/server/internal/notes"
)

const (
	// The reserve is disk space kept free for compactions and for forgetting notes: 1/reservePart of the disk,
	// between minReserve and maxReserve bytes.
	reservePart = 20
	minReserve  = 64 << 20
	maxReserve  = 512 << 20
	// checkInterval is the interval between two checks of the disk and the folder while nothing is written.
	// Even on a busy machine there are at least two a second.
	checkInterval = 250 * time.Millisecond
	// closeTimeout is the time that Close waits for a full disk or a missing folder.
	closeTimeout = 5 * time.Second
)

// space is the admission control of the store. It refuses notes while the disk is below its reserve, the folder
// exceeds its quota, or the folder is missing. Its methods may be called concurrently.
type space struct {
	folder *folder
	fs     vfs.FS
	dir    string
	max    int64 // quota of the folder in bytes; 0 is none
	health func(error)

	mu sync.Mutex // guards the rest
	// reason is the error for which notes are refused; nil while they are accepted.
	reason    error
	exhausted chan struct{} // closed while notes are refused
	// measured is the size of the folder at the last measurement, and written the bytes written since.
	measured, written int64
	// blocked is the number of operations of the engine that wait for a full disk.
	blocked  int
	deadline time.Time // of Close; zero before
}

func newSpace(options Options, folder *folder) *space {
	return &space{
		folder:    folder,
		fs:        options.FS,
		dir:       options.Dir,
		max:       options.MaxBytes,
		health:    options.Health,
		exhausted: make(chan struct{}),
	}
}

// gate is the [queue.Gate] of the committer.
func (s *space) gate() (shut <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exhausted, s.reason
}

// wrote counts bytes written since the last measurement.
func (s *space) wrote(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += int64(bytes)
}

// check updates the state from a check of the folder and the disk usage. With [folder.check], it costs two system
// calls.
func (s *space) check(reason error) {
	if reason != nil {
		reason = fmt.Errorf("%w (put the folder back; if only its LOCK was deleted, restart this server)", reason)
	}
	usage, err := s.fs.GetDiskUsage(s.dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason == nil {
		reason = s.lack(usage, err)
	}
	s.set(reason)
}

// lack returns the error for which there is no space, or nil. The caller holds s.mu.
func (s *space) lack(usage vfs.DiskUsage, err error) error {
	switch {
	case errors.Is(err, vfs.ErrUnsupported):
		// A file system in memory has no usage.
	case err != nil:
		return fmt.Errorf("%w: get the disk usage of %s: %w", notes.ErrUnavailable, s.dir, err)
	case usage.AvailBytes < reserve(usage):
		return fmt.Errorf("%w: the disk of %s has %d MiB left, below the reserve of %d MiB",
			notes.ErrNoRoom, s.dir, usage.AvailBytes>>20, reserve(usage)>>20)
	}
	if s.blocked > 0 {
		return fmt.Errorf("%w: writes to %s fail although its disk has %d MiB left (check the quota and the free inodes)",
			notes.ErrNoRoom, s.dir, usage.AvailBytes>>20)
	}
	if s.max > 0 && s.measured+s.written > s.max {
		return fmt.Errorf("%w: %s exceeds its limit of %d bytes: it has %d", notes.ErrNoRoom, s.dir, s.max, s.measured+s.written)
	}
	return nil
}

func reserve(usage vfs.DiskUsage) uint64 {
	return min(max(usage.TotalBytes/reservePart, minReserve), maxReserve)
}

// set sets reason and reports a change of its kind to health. The caller holds s.mu.
func (s *space) set(reason error) {
	previous := s.reason
	s.reason = reason
	switch {
	case previous == nil && reason != nil:
		close(s.exhausted)
		s.health(reason)
	case previous != nil && reason == nil:
		s.exhausted = make(chan struct{})
		s.health(nil)
	case reason != nil && errors.Is(previous, notes.ErrNoRoom) != errors.Is(reason, notes.ErrNoRoom):
		s.health(reason)
	}
}

// size returns the total size of the folder's files in bytes.
func (s *space) size() int64 {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return 0
	}
	size := int64(0)
	for _, name := range names {
		// Skip files that were deleted meanwhile.
		if info, err := s.fs.Stat(s.fs.PathJoin(s.dir, name)); err == nil {
			size += info.Size()
		}
	}
	return size
}

// measure updates the size of the folder.
func (s *space) measure() {
	s.mu.Lock()
	previous := s.written
	s.mu.Unlock()
	size := s.size()
	s.mu.Lock()
	defer s.mu.Unlock()
	// The size may or may not include bytes written during the measurement: count them as written since.
	s.measured, s.written = size, s.written-previous
}

// monitor checks the disk and the folder periodically until stop is closed.
func (s *space) monitor(stop <-chan struct{}) {
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	for {
		if s.max > 0 {
			s.measure()
		}
		s.check(s.folder.checkDir())
		select {
		case <-ticker.C:
		case <-stop:
			return
		}
	}
}

// setCloseDeadline sets the time until which Close waits for a full disk or a missing folder.
func (s *space) setCloseDeadline(deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = deadline
}

func (s *space) closeDeadlinePassed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deadline.IsZero() && time.Now().After(s.deadline)
}

// FolderSize returns the total size of a folder's files in bytes, or 0 if there is no such folder.
func FolderSize(dir string) int64 {
	return (&space{fs: vfs.Default, dir: dir}).size()
}
