package pebblestore_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// settled is the owner of notes that must all be kept.
type settled struct {
	t *testing.T
	sync.WaitGroup
}

func (s *settled) Settle(_ uint64, _ notes.Receipt, err error) {
	if err != nil {
		s.t.Error(err)
	}
	s.Done()
}

func TestForgetReclaimsSpaceOfShortLogs(t *testing.T) {
	t.Parallel()
	store := open(t, pebblestore.Options{Dir: t.TempDir()})
	random := rand.NewChaCha8([32]byte{}) // incompressible
	owner := &settled{t: t}
	const count, size = 60_000, 2_000
	for i := range count {
		encoded := make([]byte, size)
		_, _ = random.Read(encoded)
		owner.Add(1)
		store.Append(t.Context(), notes.Location{Latitude: int32(i)}, notes.Note{Time: 1, Encoded: encoded}, notes.Ticket{Owner: owner})
	}
	owner.Wait()
	if count, err := store.Forget(t.Context(), 2); count != 60_000 || err != nil {
		t.Errorf("Forget: got %d, %v", count, err)
	}
	// The engine keeps up to five old write-ahead logs, of a memtable each, for reuse.
	const rest = 90 << 20
	for deadline := time.Now().Add(30 * time.Second); store.Size() > rest; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %d bytes were forgotten, the folder still has %d", count*size, store.Size())
		}
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestRangeHidesUnsyncedNotes(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"cached log": 1, "uncached log": 10 << 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRangeHidesUnsynced(t, size)
		})
	}
}

// testRangeHidesUnsynced reads a log during the sync of its second note. The first note has size bytes.
func testRangeHidesUnsynced(t *testing.T, size int) {
	t.Helper()
	var blocked atomic.Bool
	waiting, unblock := make(chan struct{}, 100), make(chan struct{})
	disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if blocked.Load() && strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			waiting <- struct{}{}
			<-unblock
		}
		return nil
	}))
	store := open(t, pebblestore.Options{Dir: t.TempDir(), FS: disk})
	if _, err := notes.Append(t.Context(), store, notes.Location{}, notes.Note{Time: 1, Encoded: make([]byte, size)}); err != nil {
		t.Fatal(err)
	}
	blocked.Store(true)
	kept := make(chan error, 1)
	go func() {
		_, err := notes.Append(t.Context(), store, notes.Location{}, notes.Note{Time: 1, Encoded: []byte("b")})
		kept <- err
	}()
	<-waiting
	checkLength(t, store, 1)
	blocked.Store(false)
	close(unblock)
	if err := <-kept; err != nil {
		t.Error(err)
	}
	checkLength(t, store, 2)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestForgetContextOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk()
	store := open(t, pebblestore.Options{Dir: t.TempDir(), FS: disk})
	if _, err := notes.Append(t.Context(), store, notes.Location{}, notes.Note{Time: 1, Encoded: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	disk.full.Store(true)
	kept := make(chan error, 1)
	go func() {
		_, err := notes.Append(t.Context(), store, notes.Location{}, notes.Note{Time: 1, Encoded: []byte("b")})
		kept <- err
	}()
	for disk.avail.Load() != 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := store.Forget(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
	disk.full.Store(false)
	disk.avail.Store(1 << 30)
	if err := <-kept; err != nil {
		t.Error(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestErrDamagedIsPerLocation(t *testing.T) {
	t.Parallel()
	dir := stored(t)
	flip(t, largest(t, dir, "*.sst"), 0.1)
	store := open(t, pebblestore.Options{Dir: dir})
	owner := &settled{t: t}
	for i := range 100 {
		owner.Add(1)
		location := notes.Location{Latitude: int32(1 + i%3)} // The log at 1 is damaged.
		store.Append(t.Context(), location, notes.Note{Time: 1, Encoded: []byte("a")}, notes.Ticket{Owner: owner})
	}
	owner.Wait()
	var last error
	for _, err := range store.Range(t.Context(), notes.Location{Latitude: 1}, notes.Everything) {
		last = err
	}
	if !errors.Is(last, notes.ErrDamaged) {
		t.Errorf("got %v where the damage is, want notes.ErrDamaged", last)
	}
	for _, err := range store.Range(t.Context(), notes.Location{Latitude: 2}, notes.Everything) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// A damaged log that is short enough for the cache must not be cached as empty: a new note there is not the whole
// log.
func TestLogCacheSkipsDamagedLog(t *testing.T) {
	t.Parallel()
	const locations, each = 2000, 10
	dir := t.TempDir()
	store := open(t, pebblestore.Options{Dir: dir})
	random := rand.NewChaCha8([32]byte{}) // incompressible
	owner := &settled{t: t}
	for i := range locations * each {
		encoded := make([]byte, 100)
		_, _ = random.Read(encoded)
		owner.Add(1)
		store.Append(t.Context(), notes.Location{Latitude: int32(i / each)}, notes.Note{Time: 1, Encoded: encoded}, notes.Ticket{Owner: owner})
	}
	owner.Wait()
	for range 2 { // On open, the engine flushes its write-ahead log to a table.
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		store = open(t, pebblestore.Options{Dir: dir})
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	flip(t, largest(t, dir, "*.sst"), 0.5)

	store = open(t, pebblestore.Options{Dir: dir})
	damaged := 0
	for i := range int32(locations) {
		location := notes.Location{Latitude: i}
		if lastError(t, store, location) == nil {
			continue
		}
		damaged++
		if _, err := notes.Append(t.Context(), store, location, notes.Note{Time: 1, Encoded: []byte("a")}); err != nil {
			t.Errorf("a note where the log is damaged: %v", err)
		}
		if err := lastError(t, store, location); !errors.Is(err, notes.ErrDamaged) {
			t.Errorf("got %v after a further note, want notes.ErrDamaged", err)
		}
	}
	if damaged == 0 || damaged > locations/10 {
		t.Errorf("%d of %d logs are damaged, want a few", damaged, locations)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// lastError returns the error with which a range ends.
func lastError(t *testing.T, store notes.Store, location notes.Location) error {
	t.Helper()
	var last error
	for _, err := range store.Range(t.Context(), location, notes.Everything) {
		last = err
	}
	return last
}

// Bytes written while the folder is being measured count towards MaxBytes.
func TestMaxBytesCountsWritesDuringMeasurement(t *testing.T) {
	t.Parallel()
	const bound, size = 32 << 20, 1 << 20
	var armed atomic.Bool
	measuring, measure := make(chan struct{}), make(chan struct{})
	disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpList && armed.CompareAndSwap(true, false) {
			close(measuring)
			<-measure
		}
		return nil
	}))
	store := open(t, pebblestore.Options{Dir: t.TempDir(), FS: disk, MaxBytes: bound})
	armed.Store(true)
	<-measuring
	kept := 0
	for ; kept <= 2*bound/size; kept++ {
		_, err := notes.Append(t.Context(), store, notes.Location{}, notes.Note{Time: 1, Encoded: make([]byte, size)})
		if errors.Is(err, notes.ErrNoRoom) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if kept > bound/size+1 {
		t.Errorf("%d notes of %d bytes were kept during a measurement, in a folder limited to %d bytes", kept, size, bound)
	}
	close(measure)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}
