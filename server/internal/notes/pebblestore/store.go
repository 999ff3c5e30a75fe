// Package pebblestore is the [notes.Store] on the disk of this machine, in Pebble, an embedded LSM tree. A
// note is settled once it is synced to the write-ahead log: it survives a crash of the process and a loss of
// power. A folder can be open in one process at a time.
//
// Memory is bounded, whatever the size of the store: 64 MiB for the block cache, with the filters and indexes
// of tables; 32 MiB for memtables; about 64 MiB for the cache of short logs; and 64 MiB for queued notes,
// when chats append faster than the disk writes. With the overhead of Go's garbage collector, that is less
// than 500 MiB.
package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"example.com/routeguide/server/internal/notes"
)

const (
	blockCacheBytes = 64 << 20
	memTableBytes   = 16 << 20
	maxOpenTables   = 1000
	bloomBits       = 10 // per key: a false positive rate of 1%
	// Limits of a chunk of Range, in notes and bytes. A chunk of one note may exceed chunkBytes.
	chunkNotes = 512
	chunkBytes = 128 << 10
	// locationsPerScan is the number of locations read with one iterator. An open iterator keeps deleted
	// notes on the disk.
	locationsPerScan = 1024
)

// ErrInUse is the error of Open while another process has the store open.
var ErrInUse = errors.New("in use by another process (a folder can be open in one process at a time)")

// Options configure a [Store]. Only Dir is required.
type Options struct {
	// Dir is the folder of the store. Open creates it if it is missing.
	Dir string
	// MaxBytes is the largest size of the folder; 0 is no limit. Notes beyond it get [notes.ErrNoRoom]. During
	// compactions the folder can grow a little larger.
	MaxBytes int64
	// Logger receives the log of the engine; nil is none.
	Logger *slog.Logger
	// Health is called with the error when the store can no longer accept notes, and with nil when it can
	// again. Calls are not concurrent. It must not block.
	Health func(err error)
	// Fatal is called when a write or a sync has failed, or when the folder at Dir was replaced. It must end
	// the process: the engine's memory no longer matches the disk. The default is to panic.
	Fatal func(err error)
	// OnCommit is called with the duration of the write and sync of each commit group; nil is none. It must not
	// block.
	OnCommit func(took time.Duration)
	// FS is the file system; the default is that of the operating system.
	FS vfs.FS
}

// A Store is a [notes.Store] in a folder.
type Store struct {
	db         *pebble.DB
	cache      *logCache
	folder     *folder
	space      *space
	committer  *committer
	monitoring sync.WaitGroup
	stop       chan struct{}

	open   sync.RWMutex // guards closed; read-locked while the database is in use
	closed bool
	once   sync.Once
	err    error // of the first Close
}

// Open opens the store in a folder. An error names the folder, and the damaged file if there is one.
func Open(options Options) (*Store, error) {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Health == nil {
		options.Health = func(error) {}
	}
	if options.Fatal == nil {
		options.Fatal = func(err error) { panic(err) }
	}
	if options.FS == nil {
		options.FS = vfs.Default
	}
	store := &Store{cache: newLogCache(), stop: make(chan struct{})}
	engine := &engineLog{logger: options.Logger, fatal: options.Fatal}
	store.folder = newFolder(options.Dir, engine.end)
	engine.folder = store.folder
	store.space = newSpace(options, store.folder)
	db, err := pebble.Open(options.Dir, engineOptions(options, store.space, engine))
	if err != nil {
		return nil, explainOpen(options.Dir, engine, err)
	}
	last, err := lastPosition(db)
	if err == nil {
		err = store.folder.pin(options.FS)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the store of notes in %s: %w", options.Dir, err), db.Close())
	}
	store.db = db
	store.space.check(store.folder.check())
	store.committer = newCommitter(db, store.cache, store.space, last, options.OnCommit)
	store.monitoring.Go(func() { store.space.monitor(store.stop) })
	return store, nil
}

func engineOptions(options Options, space *space, log *engineLog) *pebble.Options {
	engine := &pebble.Options{
		Comparer:                    comparer,
		FS:                          retryFS{options.FS, space},
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   blockCacheBytes,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 2,
		MaxOpenFiles:                maxOpenTables,
		// Let writes wait only for a compaction that is far behind: a note is one key, written once.
		L0CompactionThreshold: 4,
		L0StopWritesThreshold: 64,
		Logger:                log,
		EventListener: &pebble.EventListener{
			BackgroundError: log.background,
			DataCorruption:  log.corruption,
		},
	}
	for i := range engine.Levels {
		engine.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
	}
	return engine
}

// explainOpen returns an error of pebble.Open in the terms of this package.
func explainOpen(dir string, log *engineLog, err error) error {
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("the store of notes in %s: %w", dir, ErrInUse)
	case pebble.IsCorruptionError(err), isIncomplete(err):
		return fmt.Errorf("%w: %s: %w%s", notes.ErrDamaged, dir, err, damagedFiles(dir, log, err))
	default:
		return fmt.Errorf("open the store of notes in %s: %w", dir, err)
	}
}

// damagedFiles returns the names of the files that an error is about, in parentheses, or "" if the error
// names them.
func damagedFiles(dir string, log *engineLog, err error) string {
	files := log.damaged()
	if strings.Contains(err.Error(), "WAL") {
		// One or two files. Glob cannot fail: the engine has just read the folder.
		logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
		files = append(files, logs...)
	}
	if len(files) == 0 {
		return ""
	}
	return " (" + strings.Join(files, ", ") + ")"
}

// isIncomplete returns whether a file of the store is missing or has the wrong size. The engine has no error
// values for these.
func isIncomplete(err error) bool {
	return strings.Contains(err.Error(), "unknown to the objstorage provider") || strings.Contains(err.Error(), "object size mismatch")
}

func lastPosition(db *pebble.DB) (notes.Position, error) {
	value, closer, err := db.Get(lastKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, damaged(err)
	}
	defer closer.Close()
	if len(value) != 8 {
		return 0, fmt.Errorf("%w: the last position has %d bytes", notes.ErrDamaged, len(value))
	}
	return notes.Position(binary.BigEndian.Uint64(value)), nil
}

// damaged returns an error of the engine in the terms of the contract.
func damaged(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", notes.ErrDamaged, err)
	}
	return err
}

// Append implements [notes.Store]. It blocks while 32 MiB are queued behind the commit group in flight.
func (s *Store) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	s.committer.append(ctx, pendingNote{location, note, ticket})
}

// Range implements [notes.Store].
func (s *Store) Range(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		// The engine would return notes that are written and not synced: hide them.
		span.Through = min(span.Through, notes.Position(s.committer.synced.Load()))
		if log, ok := s.cache.get(location); ok && ctx.Err() == nil && !s.isClosed() && !s.folder.missing.Load() {
			if log = span.Of(log); len(log) > 0 {
				yield(log, nil)
			}
			return
		}
		if span.Newest > 0 {
			var err error
			if span, err = s.newest(location, span); err != nil {
				yield(nil, err)
				return
			}
		}
		for chunk := (&chunk{}); span.After < span.Through; {
			err := ctx.Err()
			if err == nil {
				err = s.read(chunk, location, span)
			}
			if err != nil {
				yield(nil, err)
				return
			}
			if len(chunk.notes) == 0 || !yield(chunk.notes, nil) || !chunk.more {
				return
			}
			span.After = chunk.notes[len(chunk.notes)-1].Position
		}
	}
}

// chunk is a part of a log, copied out of the engine.
type chunk struct {
	notes []notes.Note
	bytes []byte
	more  bool // another chunk may follow
}

// read copies the first chunk of a span.
func (s *Store) read(chunk *chunk, location notes.Location, span notes.Span) error {
	chunk.notes, chunk.bytes, chunk.more = chunk.notes[:0], chunk.bytes[:0], false
	return s.iterate(location, span, func(iterator *pebble.Iterator) error {
		for valid := iterator.First(); valid; valid = iterator.Next() {
			value, err := iterator.ValueAndErr()
			if err != nil {
				return err
			}
			if len(chunk.notes) > 0 && (len(chunk.notes) == chunkNotes || len(chunk.bytes)+len(value) > chunkBytes) {
				chunk.more = true
				return nil
			}
			if len(chunk.bytes)+len(value) > cap(chunk.bytes) {
				// The notes so far keep the old array. A chunk seldom grows more than once.
				chunk.bytes = make([]byte, 0, min(max(2*cap(chunk.bytes), len(value), 4<<10), max(chunkBytes, len(value))))
			}
			start := len(chunk.bytes)
			chunk.bytes = append(chunk.bytes, value...)
			_, note, err := parseNote(iterator.Key(), chunk.bytes[start:])
			if err != nil {
				return err
			}
			chunk.notes = append(chunk.notes, note)
		}
		return nil
	})
}

// newest returns the span with Newest resolved: its After is the position before the newest notes.
func (s *Store) newest(location notes.Location, span notes.Span) (notes.Span, error) {
	skip := span.Newest
	span.Newest = 0
	err := s.iterate(location, span, func(iterator *pebble.Iterator) error {
		valid := iterator.Last()
		for ; valid && skip > 0; valid = iterator.Prev() {
			skip--
		}
		if valid {
			_, position, err := parseKey(iterator.Key())
			span.After = position
			return err
		}
		return nil
	})
	return span, err
}

// iterate calls read with an iterator over a span of a log.
func (s *Store) iterate(location notes.Location, span notes.Span, read func(*pebble.Iterator) error) error {
	upper := appendPrefix(nil, location)
	if span.Through == math.MaxUint64 {
		upper = comparer.ImmediateSuccessor(nil, upper)
	} else {
		upper = binary.BigEndian.AppendUint64(upper, uint64(span.Through)+1)
	}
	return s.iterateKeys(&pebble.IterOptions{LowerBound: appendKey(nil, location, span.After+1), UpperBound: upper}, read)
}

// iterateKeys calls read with an iterator, which is closed afterwards.
func (s *Store) iterateKeys(options *pebble.IterOptions, read func(*pebble.Iterator) error) error {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return notes.ErrClosed
	}
	if err := s.folder.check(); err != nil {
		return err // The engine could not open further files.
	}
	iterator, err := s.db.NewIter(options)
	if err != nil {
		return damaged(err)
	}
	err = read(iterator)
	return damaged(errors.Join(err, iterator.Close()))
}

func (s *Store) isClosed() bool {
	s.open.RLock()
	defer s.open.RUnlock()
	return s.closed
}

// Locations implements [notes.Store].
func (s *Store) Locations(ctx context.Context) iter.Seq2[notes.Location, error] {
	return func(yield func(notes.Location, error) bool) {
		next := []byte{noteTag}
		for locations := []notes.Location(nil); next != nil; {
			err := ctx.Err()
			if err == nil {
				locations, next, err = s.locations(locations[:0], next)
			}
			if err != nil {
				yield(notes.Location{}, err)
				return
			}
			for _, location := range locations {
				if !yield(location, nil) {
					return
				}
			}
		}
	}
}

// locations appends up to locationsPerScan locations from a key on. It returns the key to continue at, or nil
// at the end.
func (s *Store) locations(locations []notes.Location, from []byte) (_ []notes.Location, next []byte, err error) {
	err = s.iterateKeys(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{noteTag + 1}}, func(iterator *pebble.Iterator) error {
		for valid := iterator.First(); valid; valid = iterator.NextPrefix() {
			location, _, err := parseKey(iterator.Key())
			if err != nil {
				return err
			}
			if len(locations) == locationsPerScan {
				next = appendPrefix(nil, location)
				return nil
			}
			locations = append(locations, location)
		}
		return nil
	})
	return locations, next, err
}

// Size returns the total size of the store's files in bytes.
func (s *Store) Size() int64 {
	return s.space.size()
}

// Close implements [notes.Store]. Writes that wait for a full disk or a missing folder get five more seconds;
// then Close calls Fatal.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.space.setCloseDeadline(time.Now().Add(closeTimeout))
		s.committer.close()
		close(s.stop)
		s.monitoring.Wait()
		s.open.Lock()
		defer s.open.Unlock()
		s.closed = true
		if err := s.db.Close(); err != nil {
			s.err = fmt.Errorf("close the store of notes: %w", err)
		}
	})
	return s.err
}
