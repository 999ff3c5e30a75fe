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
	// The reserve is a part of the disk, within bounds, that notes do not get: tables are merged
	// there, and notes are forgotten.
	reservePart  = 20
	reserveLeast = 64 << 20
	reserveMost  = 256 << 20
	// watchEvery is how often the room and the folder are looked at when nothing is written: twice a
	// second at least, also when the machine is busy.
	watchEvery = 250 * time.Millisecond
	// closeTimeout is how long Close waits for a full disk, or for a folder that is away.
	closeTimeout = 5 * time.Second
)

// space knows whether there is space for notes, and a folder for them. Its methods may be called concurrently.
type space struct {
	folder *folder
	fs     vfs.FS
	dir    string
	max    int64
	health func(error)

	mu sync.Mutex // guards the rest
	// reason is why there is no room; nil while there is.
	reason error
	filled chan struct{} // is closed when there is no room, and replaced when there is again
	// stored is the size of the folder when it was measured last, and since what was written since.
	stored, since int64
	// stuck is how many operations of the engine wait because they found the disk full.
	stuck    int
	deadline time.Time // of Close; zero before
}

func newRoom(options Options, folder *folder) *space {
	return &space{
		folder: folder,
		fs:     options.FS,
		dir:    options.Dir,
		max:    options.MaxBytes,
		health: options.Health,
		filled: make(chan struct{}),
	}
}

// gate returns why there is no room for notes, or a channel that is closed when there is none any
// more.
func (r *space) gate() (shut <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.filled, r.reason
}

// wrote counts what was written since the folder was measured.
func (r *space) wrote(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since += int64(bytes)
}

// check looks for the folder and how much room there is on its disk. It costs three system calls.
func (r *space) check() {
	reason := r.folder.look()
	if reason != nil {
		reason = fmt.Errorf("%w: notes are taken again once it is back; if only its LOCK was deleted, restart this server", reason)
	}
	usage, err := r.fs.GetDiskUsage(r.dir)
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason == nil {
		reason = r.lack(usage, err)
	}
	r.set(reason)
}

// lack returns why there is no room, or nil, by what the disk says of itself. The caller holds r.mu.
func (r *space) lack(usage vfs.DiskUsage, err error) error {
	switch {
	case errors.Is(err, vfs.ErrUnsupported):
		// A file system in memory does not say.
	case err != nil:
		return fmt.Errorf("%w: look how much room is in %s: %w", notes.ErrUnavailable, r.dir, err)
	case usage.AvailBytes < reserve(usage):
		return fmt.Errorf("%w: the disk of %s has %d MiB left, and %d MiB are held in reserve",
			notes.ErrNoRoom, r.dir, usage.AvailBytes>>20, reserve(usage)>>20)
	}
	if r.stuck > 0 {
		return fmt.Errorf("%w: writes to %s find the disk full, though it says that %d MiB are left: is a quota used up, or are there no inodes?",
			notes.ErrNoRoom, r.dir, usage.AvailBytes>>20)
	}
	if r.max > 0 && r.stored+r.since > r.max {
		return fmt.Errorf("%w: %s is bounded to %d bytes, and has %d", notes.ErrNoRoom, r.dir, r.max, r.stored+r.since)
	}
	return nil
}

func reserve(usage vfs.DiskUsage) uint64 {
	return min(max(usage.TotalBytes/reservePart, reserveLeast), reserveMost)
}

// set makes reason the reason for which there is no room. The caller holds r.mu.
func (r *space) set(reason error) {
	was := r.reason
	r.reason = reason
	switch {
	case was == nil && reason != nil:
		close(r.filled)
		r.health(reason)
	case was != nil && reason == nil:
		r.filled = make(chan struct{})
		r.health(nil)
	}
}

// size returns how many bytes the files of the folder have.
func (r *space) size() int64 {
	names, err := r.fs.List(r.dir)
	if err != nil {
		return 0
	}
	size := int64(0)
	for _, name := range names {
		// A file that has gone meanwhile has no size.
		if info, err := r.fs.Stat(r.fs.PathJoin(r.dir, name)); err == nil {
			size += info.Size()
		}
	}
	return size
}

// measure measures the folder.
func (r *space) measure() {
	r.mu.Lock()
	before := r.since
	r.mu.Unlock()
	size := r.size()
	r.mu.Lock()
	defer r.mu.Unlock()
	// What was written meanwhile may be in the size or not.
	r.stored, r.since = size, r.since-before
}

// watch looks at the room and the folder until stop is closed.
func (r *space) watch(stop <-chan struct{}) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		if r.max > 0 {
			r.measure()
		}
		r.check()
		select {
		case <-ticker.C:
		case <-stop:
			return
		}
	}
}

// closeBy sets the time until which Close waits for a full disk, or for a folder that is away.
func (r *space) closeBy(deadline time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = deadline
}

func (r *space) overdue() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.deadline.IsZero() && time.Now().After(r.deadline)
}

// FolderSize returns how many bytes the files of a folder have, or 0 if it is not there.
func FolderSize(dir string) int64 {
	return (&space{fs: vfs.Default, dir: dir}).size()
}
