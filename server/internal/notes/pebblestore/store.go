// Package pebblestore keeps notes on the disk of this machine, in Pebble, an embedded LSM tree.
// A note is settled once it is synced: neither a crash of the process nor a loss of power takes
// it back. One process at a time can open a folder.
//
// Memory is bounded whatever the size of the store: 64 MiB of cached blocks, the filters and indexes of
// tables among them; 32 MiB of notes that are not yet in tables; about 64 MiB of recent logs; and 64 MiB of
// notes on their way to the disk, when chats append faster than it writes. With what Go's garbage
// collector leaves lying, that is less than 500 MiB.
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
	cacheBytes    = 64 << 20
	memTableBytes = 16 << 20
	openTables    = 1000
	bloomBits     = 10 // a key: one answer in a hundred is wrong, and costs a read
	// chunkNotes and chunkBytes bound a chunk of a range, but for its last note.
	chunkNotes = 512
	chunkBytes = 128 << 10
	// locationsAtOnce is how many locations are looked at with one iterator, which keeps what is
	// deleted meanwhile on the disk.
	locationsAtOnce = 1024
)

// ErrInUse says that another process has the store open.
var ErrInUse = errors.New("it is in use by another process, and only one at a time can have it")

// Options are what a [Store] needs to know. Only Dir is required.
type Options struct {
	// Dir is the folder of the store. It is made if it is not there.
	Dir string
	// MaxBytes bounds the size of the folder; 0 is no bound. Notes beyond it get
	// [notes.ErrNoRoom]. The folder can grow a little larger while tables are merged.
	MaxBytes int64
	// Logger gets what the engine has to say. Without it, nothing is logged.
	Logger *slog.Logger
	// Health is called, not concurrently, when the store can no longer take notes, with the reason,
	// and with nil when it can again. It must not block.
	Health func(err error)
	// Fatal is called when a write or a sync has failed, or when another folder is in the place of Dir. It
	// must end the process: what the engine has in memory is no longer what is on the disk. Without it,
	// the process panics.
	Fatal func(err error)
	// OnCommit is told, unless it is nil, how long it took to write and sync each batch of notes. It must
	// not block.
	OnCommit func(took time.Duration)
	// FS is the file system; without it, that of the operating system.
	FS vfs.FS
}

// A Store is a [notes.Store] in a folder.
type Store struct {
	db        *pebble.DB
	recent    *logCache
	folder    *folder
	room      *space
	committer *committer
	watching  sync.WaitGroup
	stop      chan struct{}

	open   sync.RWMutex // guards closed; is held for reading while the database is used
	closed bool
	once   sync.Once
	err    error // of the first Close
}

// Open opens the store in a folder. An error names the folder, and the file that is damaged if there
// is one.
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
	store := &Store{recent: newRecent(), stop: make(chan struct{})}
	engine := &engineLog{logger: options.Logger, fatal: options.Fatal}
	store.folder = newFolder(options.Dir, engine.end)
	engine.folder = store.folder
	store.room = newRoom(options, store.folder)
	db, err := pebble.Open(options.Dir, engineOptions(options, store.room, engine))
	if err != nil {
		return nil, explainOpen(options.Dir, engine, err)
	}
	last, err := lastPosition(db)
	if err == nil {
		err = store.folder.remember(options.FS)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the store of notes in %s: %w", options.Dir, err), db.Close())
	}
	store.db = db
	store.room.check()
	store.committer = newCommitter(db, store.recent, store.room, last, options.OnCommit)
	store.watching.Go(func() { store.room.watch(store.stop) })
	return store, nil
}

func engineOptions(options Options, room *space, log *engineLog) *pebble.Options {
	engine := &pebble.Options{
		Comparer:                    comparer,
		FS:                          patientFS{options.FS, room},
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   cacheBytes,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: 2,
		MaxOpenFiles:                openTables,
		// Writes wait for merges only when those are far behind: a note is one key, written once.
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

// explainOpen says why a store cannot be opened.
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

// damagedFiles returns the names of the files that an error is about, if it does not name them, as the
// end of its text.
func damagedFiles(dir string, log *engineLog, err error) string {
	files := log.damaged()
	if strings.Contains(err.Error(), "WAL") {
		// There are one or two of them. That they can be listed was seen when they were read.
		logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
		files = append(files, logs...)
	}
	if len(files) == 0 {
		return ""
	}
	return " (" + strings.Join(files, ", ") + ")"
}

// isIncomplete returns whether a file of the store is missing or of another size than it was written.
// The engine has no error of its own for these.
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
		return 0, fmt.Errorf("%w: its last position has %d bytes", notes.ErrDamaged, len(value))
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

// Append implements [notes.Store]. It waits while 32 MiB wait for those that are being written.
func (s *Store) Append(ctx context.Context, at notes.Location, note notes.Note, ticket notes.Ticket) {
	s.committer.append(ctx, appended{at, note, ticket})
}

// Range implements [notes.Store].
func (s *Store) Range(ctx context.Context, at notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		// What is not synced yet is not kept, though the engine would read it.
		span.Through = min(span.Through, notes.Position(s.committer.synced.Load()))
		if log, ok := s.recent.get(at); ok && ctx.Err() == nil && !s.isClosed() && !s.folder.away.Load() {
			if log = span.Of(log); len(log) > 0 {
				yield(log, nil)
			}
			return
		}
		if span.Newest > 0 {
			var err error
			if span, err = s.newest(at, span); err != nil {
				yield(nil, err)
				return
			}
		}
		for chunk := (&chunk{}); span.After < span.Through; {
			err := ctx.Err()
			if err == nil {
				err = s.read(chunk, at, span)
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

// chunk is a part of a log that was copied out of the engine.
type chunk struct {
	notes []notes.Note
	bytes []byte
	more  bool // there is, or may be, a next one
}

// read copies the start of a span.
func (s *Store) read(chunk *chunk, at notes.Location, span notes.Span) error {
	chunk.notes, chunk.bytes, chunk.more = chunk.notes[:0], chunk.bytes[:0], false
	return s.iterate(at, span, func(iterator *pebble.Iterator) error {
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
				// The notes so far keep what they share; a chunk seldom needs more than once.
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

// newest returns the span without what its Newest leaves out.
func (s *Store) newest(at notes.Location, span notes.Span) (notes.Span, error) {
	skip := span.Newest
	span.Newest = 0
	err := s.iterate(at, span, func(iterator *pebble.Iterator) error {
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
func (s *Store) iterate(at notes.Location, span notes.Span, read func(*pebble.Iterator) error) error {
	upper := appendPrefix(nil, at)
	if span.Through == math.MaxUint64 {
		upper = comparer.ImmediateSuccessor(nil, upper)
	} else {
		upper = binary.BigEndian.AppendUint64(upper, uint64(span.Through)+1)
	}
	return s.iterateKeys(&pebble.IterOptions{LowerBound: appendKey(nil, at, span.After+1), UpperBound: upper}, read)
}

// iterateKeys calls read with an iterator, which is closed afterwards.
func (s *Store) iterateKeys(options *pebble.IterOptions, read func(*pebble.Iterator) error) error {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return notes.ErrClosed
	}
	if err := s.folder.look(); err != nil {
		return err // Some of its files could not be opened.
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
			for _, at := range locations {
				if !yield(at, nil) {
					return
				}
			}
		}
	}
}

// locations returns some locations from a key on, and the key from which on there may be more: nil
// if there are none.
func (s *Store) locations(locations []notes.Location, from []byte) (_ []notes.Location, next []byte, err error) {
	err = s.iterateKeys(&pebble.IterOptions{LowerBound: from, UpperBound: []byte{noteTag + 1}}, func(iterator *pebble.Iterator) error {
		for valid := iterator.First(); valid; valid = iterator.NextPrefix() {
			at, _, err := parseKey(iterator.Key())
			if err != nil {
				return err
			}
			if len(locations) == locationsAtOnce {
				next = appendPrefix(nil, at)
				return nil
			}
			locations = append(locations, at)
		}
		return nil
	})
	return locations, next, err
}

// Size returns how many bytes the files of the store have.
func (s *Store) Size() int64 {
	return s.room.size()
}

// Close implements [notes.Store]. What waits for a full disk or a folder that is away, it lets wait for five
// seconds more: then it calls Fatal.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.room.closeBy(time.Now().Add(closeTimeout))
		s.committer.close()
		close(s.stop)
		s.watching.Wait()
		s.open.Lock()
		defer s.open.Unlock()
		s.closed = true
		if err := s.db.Close(); err != nil {
			s.err = fmt.Errorf("close the store of notes: %w", err)
		}
	})
	return s.err
}
