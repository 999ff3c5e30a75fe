// Package watched reads files again when they have changed, such as certificates that are renewed while a
// server runs. It knows nothing of what is in them.
package reload

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// every is how often files are looked at, at the most.
const every = time.Second

// Files are files and what was made of them. Its methods may be called concurrently.
type Files[T any] struct {
	paths  []string
	load   func() (T, error)
	logger *slog.Logger

	mu     sync.Mutex // guards the rest
	looked time.Time
	stamps []stamp // of what value was made of
	failed []stamp // of what nothing could be made of
	value  T
}

// stamp tells two versions of a file apart.
type stamp struct {
	modified time.Time
	size     int64
}

// New returns files that load has read well.
func New[T any](load func() (T, error), logger *slog.Logger, paths ...string) (*Files[T], error) {
	files := &Files[T]{paths: paths, load: load, logger: logger, looked: time.Now()}
	files.stamps = files.look()
	var err error
	files.value, err = load()
	return files, err
}

// Get returns what load made of the files, as they were a second ago or later. If load fails, that stays what
// it was, and the log says why.
func (f *Files[T]) Get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.looked) < every {
		return f.value
	}
	f.looked = time.Now()
	stamps := f.look()
	if same(stamps, f.stamps) {
		return f.value
	}
	value, err := f.load() // again and again, while it fails: not all reasons are in the file
	if err != nil {
		if !same(stamps, f.failed) {
			f.logger.Error("a file has changed and cannot be used: what it was before goes on", "files", f.paths, "err", err)
		}
		f.failed = stamps
		return f.value
	}
	f.value, f.stamps, f.failed = value, stamps, nil
	f.logger.Info("read again, since it has changed", "files", f.paths)
	return value
}

func (f *Files[T]) look() []stamp {
	stamps := make([]stamp, len(f.paths))
	for i, path := range f.paths {
		if info, err := os.Stat(path); err == nil {
			stamps[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

func same(a, b []stamp) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].modified.Equal(b[i].modified) || a[i].size != b[i].size {
			return false
		}
	}
	return true
}
