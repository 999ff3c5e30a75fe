package pebblestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"

	"example.com/routeguide/server/internal/notes"
)

// Migration of a folder in the layout of older versions.
//
// The new store is built in the subfolder "migrating", from the old one, which is only read. Its files have larger
// numbers than those of the old store, so that both fit into one folder. Then:
//
//  1. The new manifest is linked into the folder, and the engine's manifest marker is moved to it. This is the
//     commit: before it, the folder is the old store, whatever else is in there, and a migration that was cut short
//     starts again. After it, the folder is the new store, which older versions refuse.
//  2. The other new files are moved into the folder. If that is cut short, the next Open goes on with it.
//  3. The engine deletes the old files when it opens the folder: no manifest refers to them.
//
// The folder itself, and its LOCK, which is held, stay where they are.
const (
	// migratingName is the name of the folder in which the new store is built.
	migratingName = "migrating"
	// manifestMarker is the name of the engine's marker that says which manifest is the current one.
	manifestMarker      = "manifest"
	migrationBatchBytes = 1 << 20
	migrationCacheBytes = 8 << 20 // block cache; blocks are read once
	progressInterval    = 5 * time.Second
)

// migrationSizes are the sizes of a migration. Tests make them small.
type migrationSizes struct {
	// runPositions is the number of positions in a run. Runs are counted, and put together to epochs.
	runPositions notes.Position
	// A pass writes 1/passes of the epochs, but at least passEpochs. It is on the disk twice while it is sorted.
	passes, passEpochs int
	memTableBytes      uint64 // size of a memtable, of which there are two
}

var migrationDefaults = migrationSizes{
	runPositions:  1 << 12,
	passes:        16,
	passEpochs:    4,
	memTableBytes: 64 << 20,
}

// migration is the work of one migrate.
type migration struct {
	migrationSizes

	fs       vfs.FS
	dir      string // folder of the store
	building string // folder in which the new store is built
	lock     *pebble.Lock
	log      *engineLog
	logger   *slog.Logger

	epochNotes int64          // largest number of notes in an epoch
	last       notes.Position // last position assigned
	epochs     []migratedEpoch

	// For the log: notes counted so far, all notes (0 while they are counted), and notes written so far.
	counted, total, written atomic.Int64
}

// migratedEpoch is an epoch of the new store.
type migratedEpoch struct {
	first        notes.Position
	notes, bytes int64
	oldest       int64 // time of the oldest note
}

// migrate migrates the folder of a store that an older version wrote, or goes on with a migration that was cut
// short. Other folders it leaves alone. An error before the commit leaves the old store as it was. When a write fails, the
// engine ends the process with [Options.Fatal], as it does later.
func migrate(options Options, log *engineLog, sizes migrationSizes) error {
	lock, err := pebble.LockDirectory(options.Dir, options.FS)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return explainOpen(options.Dir, log, err)
	}
	m := &migration{
		migrationSizes: sizes,
		fs:             options.FS,
		dir:            options.Dir,
		building:       options.FS.PathJoin(options.Dir, migratingName),
		lock:           lock,
		log:            log,
		logger:         options.Logger.With("dir", options.Dir),
		epochNotes:     int64(cmp.Or(options.epochNotes, epochNotes)),
	}
	if err := errors.Join(m.run(), lock.Close()); err != nil {
		return explainOpen(options.Dir, log, err)
	}
	return nil
}

func (m *migration) run() error {
	current, err := pebble.Peek(m.dir, m.fs)
	if err != nil || !current.Exists {
		return err
	}
	switch readComparerName(m.fs, current.ManifestFilename) {
	case oldComparer.Name:
		start := time.Now()
		if err := m.build(current.FormatMajorVersion); err != nil {
			return errors.Join(fmt.Errorf("migrate it to the present layout: %w", err), m.removeBuilding())
		}
		manifest, err := m.commit()
		if err != nil {
			return err
		}
		if err := m.moveFiles(manifest); err != nil {
			return err
		}
		m.logger.Info("migrated the store of notes", "notes", m.total.Load(), "took", time.Since(start).Round(time.Millisecond))
		return nil
	case comparer.Name:
		return m.moveFiles(m.fs.PathBase(current.ManifestFilename))
	default:
		return nil // The engine says what is wrong with the folder.
	}
}

// build builds the new store.
func (m *migration) build(format pebble.FormatMajorVersion) (err error) {
	if err := m.removeBuilding(); err != nil {
		return err
	}
	if err := m.checkSpace(); err != nil {
		return err
	}
	old, err := pebble.Open(m.dir, &pebble.Options{
		Comparer:           oldComparer,
		FS:                 m.fs,
		Lock:               m.lock,
		ReadOnly:           true,
		FormatMajorVersion: format,
		CacheSize:          migrationCacheBytes,
		MaxOpenFiles:       maxOpenTables,
		Logger:             m.log,
		EventListener:      &pebble.EventListener{DataCorruption: m.log.corruption},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	defer m.logProgress()()
	if err := m.count(old); err != nil {
		return err
	}
	store, err := m.create(format)
	if err != nil {
		return err
	}
	return errors.Join(m.write(old, store), store.Close())
}

// checkSpace fails unless the disk has room for the new store beside the old one.
func (m *migration) checkSpace() error {
	usage, err := m.fs.GetDiskUsage(m.dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	size := uint64((&space{fs: m.fs, dir: m.dir}).size())
	// A new key has 4 bytes more, and a value one byte. A pass is on the disk twice while it is sorted.
	need := size + size/4 + min(size, max(size/uint64(m.passes), uint64(m.passEpochs)*epochBytes)) + reserve(usage)
	m.logger.Info("migrating the store of notes to the present layout", "bytes", size, "free", usage.AvailBytes, "needed", need)
	if usage.AvailBytes < need {
		return fmt.Errorf("%w: the disk has %d MiB left, and it takes up to %d MiB (the folder is as it was)",
			notes.ErrNoRoom, usage.AvailBytes>>20, need>>20)
	}
	return nil
}

// logProgress logs the progress periodically, until the function that it returns is called.
func (m *migration) logProgress() (stop func()) {
	stopping, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				m.logCounts()
			case <-stopping:
				return
			}
		}
	}()
	return func() {
		close(stopping)
		<-done
	}
}

func (m *migration) logCounts() {
	if total, written := m.total.Load(), m.written.Load(); total > 0 {
		m.logger.Info("migrating the store of notes", "notes", written, "of", total, "percent", 100*written/total)
	} else {
		m.logger.Info("counting the notes to migrate", "notes", m.counted.Load())
	}
}

// count counts the notes of the old store, and divides them into epochs.
func (m *migration) count(old *pebble.DB) error {
	runs := make(map[notes.Position]*migratedEpoch)
	err := m.scan(old, 0, math.MaxUint64, func(_ uint64, position notes.Position, value []byte) error {
		first := position - position%m.runPositions
		run := runs[first]
		if run == nil {
			run = &migratedEpoch{first: max(first, 1), oldest: math.MaxInt64}
			runs[first] = run
		}
		run.notes++
		run.bytes += int64(keySize + headSize + len(value) - oldTimeSize)
		run.oldest = min(run.oldest, int64(binary.BigEndian.Uint64(value)))
		m.last = max(m.last, position)
		m.counted.Add(1)
		return nil
	})
	if err != nil {
		return err
	}
	for _, first := range slices.Sorted(maps.Keys(runs)) {
		run := runs[first]
		if n := len(m.epochs); n > 0 && m.epochs[n-1].notes+run.notes <= m.epochNotes && m.epochs[n-1].bytes+run.bytes <= epochBytes {
			epoch := &m.epochs[n-1]
			epoch.notes, epoch.bytes, epoch.oldest = epoch.notes+run.notes, epoch.bytes+run.bytes, min(epoch.oldest, run.oldest)
			continue
		}
		m.epochs = append(m.epochs, *run)
	}
	m.total.Store(m.counted.Load())
	m.logCounts()
	return nil
}

// create creates the new store, whose files have larger numbers than those in the folder.
func (m *migration) create(format pebble.FormatMajorVersion) (*pebble.DB, error) {
	names, err := m.fs.List(m.dir)
	if err != nil {
		return nil, err
	}
	largest := uint64(0)
	for _, name := range names {
		largest = max(largest, fileNumber(name))
	}
	if err := m.fs.MkdirAll(m.building, 0o755); err != nil {
		return nil, err
	}
	// The engine continues after the largest number of a file that it finds. It deletes this one.
	seed, err := m.fs.Create(m.fs.PathJoin(m.building, fmt.Sprintf("temporary.%06d.dbtmp", largest+1)), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	if err := seed.Close(); err != nil {
		return nil, err
	}
	engine := engineOptions(m.fs, m.log)
	// The marker of the format stays the one of the old store.
	engine.FormatMajorVersion = format
	engine.CacheSize = migrationCacheBytes
	engine.MemTableSize = m.memTableBytes
	engine.MemTableStopWritesThreshold = 2
	// Each note is written twice: to a table of sorted notes, and when these are merged, by write.
	engine.DisableAutomaticCompactions = true
	engine.L0StopWritesThreshold = math.MaxInt
	engine.DisableWAL = true
	store, err := pebble.Open(m.building, engine)
	if err == nil {
		err = store.Close()
	}
	if err != nil {
		return nil, err
	}
	// A store that is opened again has a manifest with a larger number, too. It says that write-ahead logs with smaller
	// numbers are not to be replayed: those of the old store.
	return pebble.Open(m.building, engine)
}

// fileNumber returns the number of a file of the engine: a table, a log, a manifest, or a file of options. It is 0 if
// the name is none of these.
func fileNumber(name string) uint64 {
	match := numberedFile.FindStringSubmatch(name)
	if match == nil {
		return 0
	}
	number, err := strconv.ParseUint(match[1], 10, 64)
	if err != nil {
		return 0
	}
	return number
}

var numberedFile = regexp.MustCompile(`^(?:MANIFEST-|OPTIONS-)?([0-9]+)(?:-[0-9]+)?(?:\.[a-z]+)?$`)

// write fills the new store. A pass reads all of the old store, and writes the notes of some epochs.
func (m *migration) write(old, store *pebble.DB) error {
	perPass := max(m.passEpochs, (len(m.epochs)+m.passes-1)/m.passes)
	for first := 0; first < len(m.epochs); first += perPass {
		if err := m.writeEpochs(old, store, first, min(first+perPass, len(m.epochs))); err != nil {
			return err
		}
	}
	if written := m.written.Load(); written != m.total.Load() {
		return fmt.Errorf("%d notes were read, and %d written", m.total.Load(), written)
	}
	batch := store.NewBatch()
	// The active epoch has no notes yet.
	for i, planned := range append(m.epochs, migratedEpoch{first: m.last + 1, oldest: math.MaxInt64}) {
		epoch := &epoch{number: uint32(i), first: planned.first}
		epoch.oldest.Store(planned.oldest)
		if err := batch.Set(epoch.key(), epoch.value(), nil); err != nil {
			return err
		}
	}
	err := errors.Join(
		batch.Set(lineageKey, []byte(rand.Text()), nil),
		batch.Set(lastKey, state{last: m.last, oldest: math.MaxInt64}.value(), nil),
		batch.Commit(pebble.NoSync),
		batch.Close(),
	)
	if err != nil {
		return err
	}
	return store.Flush()
}

// writeEpochs writes and sorts the notes of the epochs with numbers of at least from and less than to.
func (m *migration) writeEpochs(old, store *pebble.DB, from, to int) error {
	end := notes.Position(math.MaxUint64)
	if to < len(m.epochs) {
		end = m.epochs[to].first
	}
	batch := store.NewBatchWithSize(migrationBatchBytes)
	commit := func() error {
		if err := batch.Commit(pebble.NoSync); err != nil {
			return err
		}
		m.written.Add(int64(batch.Count()))
		batch.Reset()
		return nil
	}
	err := m.scan(old, m.epochs[from].first, end, func(z uint64, position notes.Position, value []byte) error {
		after, _ := slices.BinarySearchFunc(m.epochs, position, func(epoch migratedEpoch, position notes.Position) int {
			return cmp.Or(cmp.Compare(epoch.first, position), -1) // the first one that starts after the position
		})
		note := notes.Note{Time: int64(binary.BigEndian.Uint64(value)), Encoded: value[oldTimeSize:]}
		set := batch.SetDeferred(keySize, valueSize(note))
		appendKey(set.Key[:0], uint32(after-1), z, position)
		appendValue(set.Value[:0], note)
		if err := set.Finish(); err != nil {
			return err
		}
		if batch.Len() < migrationBatchBytes {
			return nil
		}
		return commit()
	})
	if err == nil {
		err = commit()
	}
	if err := errors.Join(err, batch.Close()); err != nil {
		return err
	}
	// This flushes, too.
	first, last := &epoch{number: uint32(from)}, &epoch{number: uint32(to - 1)}
	return store.Compact(context.Background(), first.start(), last.end(), false)
}

// commit makes the folder the new store, and returns the name of its manifest.
func (m *migration) commit() (manifest string, err error) {
	built, err := pebble.Peek(m.building, m.fs)
	if err != nil {
		return "", err
	}
	manifest = m.fs.PathBase(built.ManifestFilename)
	if err := vfs.LinkOrCopy(m.fs, built.ManifestFilename, m.fs.PathJoin(m.dir, manifest)); err != nil {
		return "", err
	}
	// The marker must not reach the disk before the manifest.
	if err := m.syncDir(); err != nil {
		return "", err
	}
	marker, _, err := atomicfs.LocateMarker(m.fs, m.dir, manifestMarker)
	if err != nil {
		return "", err
	}
	return manifest, errors.Join(marker.Move(manifest), marker.Close())
}

// moveFiles moves the files of a new store with a manifest, which was committed, into the folder, if they are not there yet.
func (m *migration) moveFiles(manifest string) error {
	names, err := m.fs.List(m.building)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// Another manifest is that of a migration that was not committed: somebody has put another store into the folder.
	if slices.Contains(names, manifest) {
		for _, name := range names {
			// The manifest is there already. It is removed with the rest, since it says that the store may be incomplete.
			if fileNumber(name) == 0 || name == manifest {
				continue
			}
			if err := m.fs.Rename(m.fs.PathJoin(m.building, name), m.fs.PathJoin(m.dir, name)); err != nil {
				return err
			}
		}
		// The files must have reached the folder on the disk before the other one is removed.
		if err := m.syncDir(); err != nil {
			return err
		}
	}
	return m.removeBuilding()
}

// removeBuilding removes the folder of the new store.
func (m *migration) removeBuilding() error {
	if err := m.fs.RemoveAll(m.building); err != nil {
		return err
	}
	return m.syncDir()
}

func (m *migration) syncDir() error {
	dir, err := m.fs.OpenDir(m.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
