package pebblestore

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// engineLog hears what the engine has to say.
type engineLog struct {
	logger *slog.Logger
	fatal  func(error)
	folder *folder
	ended  sync.Once // fatal is called once, so that one line says why the process ends

	mu sync.Mutex // guards files
	// files are the damaged files that the engine has named while it was opened.
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

// Fatalf implements [pebble.Logger]. The engine calls it when it cannot go on, and relies on it not
// to return. What it says in further lines is where in the engine that was.
func (l *engineLog) Fatalf(format string, args ...any) {
	line, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	l.fail(errors.New(line))
}

// fail ends the process because of an error of the engine.
func (l *engineLog) fail(err error) {
	if away := l.folder.look(); away != nil {
		err = fmt.Errorf("%w, and the engine can wait for it no longer: %w", away, err)
	} else {
		err = fmt.Errorf("the store of notes cannot be written any more, and what was answered is kept: %w", err)
	}
	l.end(err)
}

// end ends the process.
func (l *engineLog) end(err error) {
	l.ended.Do(func() { l.fatal(err) })
	panic(err)
}

// background hears of errors of flushes and merges, which the engine tries again.
func (l *engineLog) background(err error) {
	switch {
	case errors.Is(err, pebble.ErrClosed), errors.Is(err, pebble.ErrCancelledCompaction):
	case pebble.IsCorruptionError(err):
		// It can still be read elsewhere, and whoever reads there is told.
		l.logger.Error("the store of notes is damaged", "err", err)
	default:
		l.fail(err)
	}
}

func (l *engineLog) corruption(info pebble.DataCorruptionInfo) {
	l.logger.Error("the store of notes is damaged", "file", info.Path, "err", info.Details)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.files) < 10 {
		l.files = append(l.files, info.Path)
	}
}

// damaged returns the names of damaged files.
func (l *engineLog) damaged() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files
}
