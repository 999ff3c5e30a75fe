// Package reload is a cache of parsed files that reloads them when they change, such as renewed certificates. It does
// not know their contents.
package reload

import (
	"log/slog"
	"os"
	"sync"
	"time"
)

// checkInterval is the minimum time between two checks of the files.
const checkInterval = time.Second

// Files is a value loaded from files. Its methods may be called concurrently.
type Files[T any] struct {
	paths  []string
	load   func() (T, error)
	logger *slog.Logger

	mu      sync.Mutex // guards the rest
	checked time.Time
	loaded  []version // of the files that value was loaded from
	failed  []version // of the files that load failed for last; nil after success
	value   T
}

// version identifies a version of a file.
type version struct {
	modified time.Time
	size     int64
}

// New calls load and returns its value, or its error. The paths are the files that load reads.
func New[T any](load func() (T, error), logger *slog.Logger, paths ...string) (*Files[T], error) {
	files := &Files[T]{paths: paths, load: load, logger: logger, checked: time.Now()}
	files.loaded = files.versions()
	var err error
	files.value, err = load()
	return files, err
}

// Get returns the value, which is at most a second older than the files. If load fails, Get keeps the previous value
// and logs the error once for each version of the files.
func (f *Files[T]) Get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.checked) < checkInterval {
		return f.value
	}
	f.checked = time.Now()
	versions := f.versions()
	if equal(versions, f.loaded) {
		return f.value
	}
	value, err := f.load() // Retry also the same version: the cause may be outside the file.
	if err != nil {
		if !equal(versions, f.failed) {
			f.logger.Error("reload failed, keeping the previous version", "files", f.paths, "err", err)
		}
		f.failed = versions
		return f.value
	}
	f.value, f.loaded, f.failed = value, versions, nil
	f.logger.Info("reloaded", "files", f.paths)
	return value
}

// versions returns the versions of the files on disk. A file that cannot be read has the zero version.
func (f *Files[T]) versions() []version {
	versions := make([]version, len(f.paths))
	for i, path := range f.paths {
		if info, err := os.Stat(path); err == nil {
			versions[i] = version{info.ModTime(), info.Size()}
		}
	}
	return versions
}

func equal(a, b []version) bool {
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
