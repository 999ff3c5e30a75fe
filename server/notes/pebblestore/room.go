package pebblestore

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"example.com/routeguide/server/notes"
)

const (
	// The reserve is a part of the disk, within bounds, that notes do not get: tables are merged
	// there, and notes are forgotten.
	reservePart  = 20
	reserveLeast = 64 << 20
	reserveMost  = 256 << 20
	// watchEvery is how often the room is looked at when nothing is written.
	watchEvery = 500 * time.Millisecond
	// closeTimeout is how long Close waits for a full disk.
	closeTimeout = 5 * time.Second
)

// room knows whether there is room for notes. Its methods may be called concurrently.
type room struct {
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
	// stuck is set while the engine waits for a full disk.
	stuck    bool
	deadline time.Time // of Close; zero before
}

func newRoom(options Options) *room {
	return &room{
		fs:     options.FS,
		dir:    options.Dir,
		max:    options.MaxBytes,
		health: options.Health,
		filled: make(chan struct{}),
	}
}

// gate returns why there is no room for notes, or a channel that is closed when there is none any
// more.
func (r *room) gate() (shut <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.filled, r.reason
}

// wrote counts what was written since the folder was measured.
func (r *room) wrote(bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since += int64(bytes)
}

// check looks how much room there is on the disk. It costs one system call.
func (r *room) check() {
	usage, err := r.fs.GetDiskUsage(r.dir)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case errors.Is(err, vfs.ErrUnsupported):
		// A file system in memory does not say.
	case err != nil:
		r.set(fmt.Errorf("look how much room is in %s: %w", r.dir, err))
		return
	case usage.AvailBytes < reserve(usage) || r.stuck:
		r.set(fmt.Errorf("%w: the disk of %s has %d MiB left, and %d MiB are held in reserve",
			notes.ErrNoRoom, r.dir, usage.AvailBytes>>20, reserve(usage)>>20))
		return
	}
	if r.max > 0 && r.stored+r.since > r.max {
		r.set(fmt.Errorf("%w: %s is bounded to %d bytes, and has %d", notes.ErrNoRoom, r.dir, r.max, r.stored+r.since))
		return
	}
	r.set(nil)
}

func reserve(usage vfs.DiskUsage) uint64 {
	return min(max(usage.TotalBytes/reservePart, reserveLeast), reserveMost)
}

// set makes reason the reason for which there is no room. The caller holds r.mu.
func (r *room) set(reason error) {
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
func (r *room) size() int64 {
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

// watch looks at the room until stop is closed.
func (r *room) watch(stop <-chan struct{}) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		if r.max > 0 {
			size := r.size()
			r.mu.Lock()
			r.stored, r.since = size, 0
			r.mu.Unlock()
		}
		r.check()
		select {
		case <-ticker.C:
		case <-stop:
			return
		}
	}
}

// full is called by the engine when a write has found the disk full, and is tried again when it
// returns. It waits until half of the reserve is free again, or until Close has waited long enough.
func (r *room) full() {
	r.setStuck(true)
	r.check()
	defer r.setStuck(false)
	for !r.overdue() {
		// Also when there seems to be room: a quota, or a lack of inodes, may pass as well.
		time.Sleep(watchEvery / 5)
		if usage, err := r.fs.GetDiskUsage(r.dir); err == nil && usage.AvailBytes > reserve(usage)/2 {
			return
		}
	}
}

func (r *room) setStuck(stuck bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stuck = stuck
}

// closeBy sets the time until which Close waits for a full disk.
func (r *room) closeBy(deadline time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = deadline
}

func (r *room) overdue() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.deadline.IsZero() && time.Now().After(r.deadline)
}

// FolderSize returns how many bytes the files of a folder have, or 0 if it is not there.
func FolderSize(dir string) int64 {
	return (&room{fs: vfs.Default, dir: dir}).size()
}
