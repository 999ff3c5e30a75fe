// Package pebblestore is the [notes.Store] on the disk of this machine, in Pebble, an embedded LSM tree. A
// note is settled once it is synced to the write-ahead log: it survives a crash of the process and a loss of
// power. A folder can be open in one process at a time.
//
// Memory is bounded, whatever the size of the store: 96 MiB for the block cache, with memtables, and with the
// filters and indexes of tables; 96 MiB for the cache of logs; 17 MiB for filters of locations; and
// 64 MiB for queued notes, when chats append faster than the disk writes. Further filters, 8.5 MiB for each 4 million
// notes, are files that are mapped into memory.
package pebblestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/feed"
)

const (
	blockCacheBytes = 96 << 20
	memTableBytes   = 16 << 20
	memTables       = 4 // those that are being filled, or written to tables
	maxOpenTables   = 1000
	tableBytes      = 8 << 20   // size of a table of the first level
	indexBytes      = 256 << 10 // a table has one index, and no index of indexes
	// Tables of notes overlap, and merging them costs more than reading them: there may be many.
	mergeTables, maxTables = 32, 128
	bloomBits              = 10 // per key: a false positive rate of 1%
)

// ErrInUse is the error of Open while another process has the store open.
var ErrInUse = errors.New("in use by another process (a folder can be open in one process at a time)")

// Options configure a [Store]. Only Dir is required.
type Options struct {
	// Dir is the folder of the store. Open creates it if it is missing.
	Dir string
	// MaxBytes is the largest size of the folder; 0 is no limit. Notes beyond it get [notes.ErrNoRoom]. During
	// compactions the folder can grow by 400 MiB more.
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

	epochNotes, replayedChanges int // for tests; 0 is the default
}

// A Store is a [notes.Store] in a folder.
type Store struct {
	db      *pebble.DB
	dir     string
	fs      vfs.FS
	logger  *slog.Logger
	lineage string
	// epochNotes is the number of notes of an epoch. The files of filters are for it.
	epochNotes int
	replayed   int // changes that can be replayed
	epochs     atomic.Pointer[epochs]
	completed  chan struct{} // has an element while the finisher must look for complete epochs
	forgetting chan struct{} // has an element during a Forget
	cache      *logCache
	feed       feed.Feed
	folder     *folder
	space      *space
	committer  *committer
	running    sync.WaitGroup     // monitor and finisher
	stop       context.CancelFunc // ends them

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
	store := &Store{
		dir:        options.Dir,
		fs:         options.FS,
		logger:     options.Logger,
		epochNotes: cmp.Or(options.epochNotes, epochNotes),
		replayed:   cmp.Or(options.replayedChanges, replayedChanges),
		completed:  make(chan struct{}, 1),
		forgetting: make(chan struct{}, 1),
		cache:      newLogCache(),
	}
	engine := &engineLog{logger: options.Logger, fatal: options.Fatal}
	store.folder = newFolder(options.Dir, engine.end)
	engine.folder = store.folder
	store.space = newSpace(options, store.folder)
	if err := migrate(options, engine, migrationDefaults); err != nil {
		return nil, err
	}
	var err error
	if store.db, err = pebble.Open(options.Dir, engineOptions(retryFS{options.FS, store.space}, engine)); err != nil {
		return nil, explainOpen(options.Dir, engine, err)
	}
	state, err := store.load()
	if err == nil {
		err = store.folder.pin(options.FS)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the store of notes in %s: %w", options.Dir, err), store.db.Close())
	}
	store.space.check(store.folder.check())
	store.committer = newCommitter(store, state, options.OnCommit)
	var ctx context.Context
	ctx, store.stop = context.WithCancel(context.Background())
	store.running.Go(func() { store.space.monitor(ctx.Done()) })
	store.running.Go(func() { store.finisher(ctx) })
	return store, nil
}

// load reads what the store keeps about itself.
func (s *Store) load() (state, error) {
	state, err := readState(s.db)
	if err != nil {
		return state, err
	}
	list, err := readEpochs(s.db, state)
	if err != nil {
		return state, err
	}
	if len(list) == 0 {
		list, err = s.create()
	} else {
		s.lineage, err = readLineage(s.db)
	}
	if err != nil {
		return state, err
	}
	s.epochs.Store(&list)
	return state, s.loadFilters(list, state.last)
}

// create initializes a new store.
func (s *Store) create() (epochs, error) {
	first := &epoch{first: 1}
	first.oldest.Store(math.MaxInt64)
	s.lineage = rand.Text()
	batch := s.db.NewBatch()
	err := errors.Join(batch.Set(first.key(), first.value(), nil), batch.Set(lineageKey, []byte(s.lineage), nil), batch.Commit(pebble.Sync))
	return epochs{first}, errors.Join(err, batch.Close())
}

func readLineage(db *pebble.DB) (string, error) {
	value, closer, err := db.Get(lineageKey)
	if err != nil {
		return "", fmt.Errorf("%w: lineage: %w", notes.ErrDamaged, err)
	}
	// A copy, made before Close: in a return statement, Go may convert after the call.
	lineage := string(value)
	return lineage, closer.Close()
}

func engineOptions(fs vfs.FS, log *engineLog) *pebble.Options {
	engine := &pebble.Options{
		Comparer:                    comparer,
		FS:                          fs,
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   blockCacheBytes,
		MemTableSize:                memTableBytes,
		MemTableStopWritesThreshold: memTables,
		MaxOpenFiles:                maxOpenTables,
		L0CompactionThreshold:       mergeTables,
		L0StopWritesThreshold:       maxTables,
		// Merge straight into the last level: with levels between, a note would be written once more for each.
		LBaseMaxBytes: math.MaxInt64,
		Logger:        log,
		EventListener: &pebble.EventListener{
			BackgroundError: log.background,
			DataCorruption:  log.corruption,
		},
	}
	engine.TargetFileSizes[0] = tableBytes
	// The notes of a log share a prefix: the engine would take all but the first for old versions, and store their values
	// apart, at the end of the table.
	engine.Experimental.SpanPolicyFunc = func([]byte) (policy pebble.SpanPolicy, endKey []byte, err error) {
		return pebble.SpanPolicy{DisableValueSeparationBySuffix: true}, nil, nil
	}
	for i := range engine.Levels {
		engine.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
		engine.Levels[i].IndexBlockSize = indexBytes
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

func (s *Store) isClosed() bool {
	s.open.RLock()
	defer s.open.RUnlock()
	return s.closed
}

// Lineage implements [notes.Store].
func (s *Store) Lineage() string { return s.lineage }

// Subscribe implements [notes.Store].
func (s *Store) Subscribe(announce func(notes.Announcement)) (unsubscribe func()) {
	return s.feed.Subscribe(announce)
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
		s.stop()
		s.running.Wait()
		s.open.Lock()
		defer s.open.Unlock()
		s.closed = true
		if err := s.db.Close(); err != nil {
			s.err = fmt.Errorf("close the store of notes: %w", err)
		}
	})
	return s.err
}
