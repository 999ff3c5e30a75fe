package pebblestore

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// maxFiles is the largest number of damaged files to name in an error.
const maxFiles = 10

// engineLog receives the engine's log lines and events.
type engineLog struct {
	logger *slog.Logger
	fatal  func(error)
	folder *folder
	ended  sync.Once // guards fatal: a single line states why the process ends

	mu sync.Mutex // guards files
	// files are paths of damaged files that the engine has reported, at most maxFiles.
	files []string
}

// Infof implements [pebble.Logger].
func (l *engineLog) Infof(format string, args ...any) {
	l.logger.Debug("pebble: " + fmt.Sprintf(format, args...))
}

// Errorf implements [pebble.Logger].
func (l *engineLog) Errorf(format string, args ...any) {
	l.logger.Warn("pebble: " + fmt.Sprintf(format, args...))
}

// Fatalf implements [pebble.Logger]. The engine calls it when it cannot go on; it must not return. Further
// lines of the text are a stack trace, which is dropped.
func (l *engineLog) Fatalf(format string, args ...any) {
	line, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	l.fail(errors.New(line))
}

// fail ends the process after an error of the engine.
func (l *engineLog) fail(err error) {
	if missing := l.folder.checkDir(); missing != nil {
		err = fmt.Errorf("the store of notes cannot be reached: %w: %w (answered notes are kept)", missing, err)
	} else {
		err = fmt.Errorf("the store of notes cannot be written: %w (answered notes are kept)", err)
	}
	l.end(err)
}

// end ends the process.
func (l *engineLog) end(err error) {
	l.ended.Do(func() { l.fatal(err) })
	panic(err)
}

// background handles errors of flushes and compactions, which the engine retries.
func (l *engineLog) background(err error) {
	switch {
	case errors.Is(err, pebble.ErrClosed), errors.Is(err, pebble.ErrCancelledCompaction):
	case pebble.IsCorruptionError(err):
		// Damage is local: the other tables can still be read, and reads of this one return the error.
		l.logger.Error("the store of notes is damaged", "err", err)
	default:
		l.fail(err)
	}
}

func (l *engineLog) corruption(info pebble.DataCorruptionInfo) {
	l.logger.Error("the store of notes is damaged", "file", info.Path, "err", info.Details)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.files) < maxFiles {
		l.files = append(l.files, info.Path)
	}
}

// damaged returns the paths of damaged files.
func (l *engineLog) damaged() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files
}
