package pebblestore_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// The disk fills up in spite of the reserve: the commit waits, and goes on once there is space.
func TestRetryFSWaitsForFullDisk(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk()
	health := make(chan error, 10)
	store := open(t, pebblestore.Options{Dir: t.TempDir(), FS: disk, Health: func(err error) { health <- err }})
	note := notes.Note{Time: 1, Encoded: []byte("a")}
	disk.full.Store(true)
	settled := make(chan error, 1)
	go func() {
		_, err := notes.Append(t.Context(), store, notes.Location{}, note)
		settled <- err
	}()
	if err := <-health; !errors.Is(err, notes.ErrNoRoom) {
		t.Errorf("health is %v, want notes.ErrNoRoom", err)
	}
	if disk.avail.Load() != 0 {
		t.Error("the disk was not found full")
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, note); !errors.Is(err, notes.ErrNoRoom) {
		t.Errorf("a further note gets %v, want notes.ErrNoRoom", err)
	}
	select {
	case err := <-settled:
		t.Errorf("the note was settled with %v on a full disk", err)
	default:
	}
	disk.full.Store(false)
	disk.avail.Store(1 << 30)
	checkKeptWithSpace(t, store, settled, health)
}

// checkKeptWithSpace checks that a store on a disk that has space again keeps the note that it held up, and closes the store.
func checkKeptWithSpace(t *testing.T, store *pebblestore.Store, settled, health <-chan error) {
	t.Helper()
	if err := <-settled; err != nil {
		t.Errorf("with space again, the note gets %v", err)
	}
	if err := <-health; err != nil {
		t.Errorf("health is %v with space", err)
	}
	checkLength(t, store, 1)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// A quota or a lack of inodes: the disk refuses writes although it reports free space.
func TestRetryFSWaitsForQuota(t *testing.T) {
	t.Parallel()
	for _, refusal := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		t.Run(refusal.Error(), func(t *testing.T) {
			t.Parallel()
			var refusing atomic.Bool
			refused := make(chan struct{}, 1000)
			disk := &smallDisk{}
			disk.avail.Store(1 << 30)
			disk.FS = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if refusing.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate) {
					refused <- struct{}{}
					return refusal
				}
				return nil
			}))
			health := make(chan error, 10)
			store := open(t, pebblestore.Options{Dir: t.TempDir(), FS: disk, Health: func(err error) { health <- err }})
			refusing.Store(true)
			note := notes.Note{Time: 1, Encoded: []byte("a")}
			settled := make(chan error, 1)
			go func() {
				_, err := notes.Append(t.Context(), store, notes.Location{}, note)
				settled <- err
			}()
			if err := <-health; !errors.Is(err, notes.ErrNoRoom) || !strings.Contains(err.Error(), "quota") {
				t.Errorf("health is %v, want notes.ErrNoRoom that mentions a quota", err)
			}
			for range 3 {
				<-refused // retries
			}
			if _, err := notes.Append(t.Context(), store, notes.Location{}, note); !errors.Is(err, notes.ErrNoRoom) {
				t.Errorf("a further note gets %v, want notes.ErrNoRoom", err)
			}
			refusing.Store(false)
			checkKeptWithSpace(t, store, settled, health)
		})
	}
}

// smallDisk is a file system with a simulated disk usage.
type smallDisk struct {
	vfs.FS

	avail atomic.Int64 // free bytes
	full  atomic.Bool  // the next write to a write-ahead log fails, and sets avail to 0
}

func newSmallDisk() *smallDisk {
	disk := &smallDisk{}
	disk.avail.Store(1 << 30)
	disk.FS = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if disk.full.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") {
			disk.avail.Store(0)
			return syscall.ENOSPC
		}
		return nil
	}))
	return disk
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: uint64(d.avail.Load()), TotalBytes: 1 << 30}, nil
}

func TestAppendErrNoRoomBelowReserve(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk()
	health := make(chan error, 10)
	store := open(t, pebblestore.Options{Dir: t.TempDir(), FS: disk, Health: func(err error) { health <- err }})
	note := notes.Note{Time: 1, Encoded: []byte("a")}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, note); err != nil {
		t.Fatal(err)
	}
	disk.avail.Store(10 << 20)
	if err := <-health; !errors.Is(err, notes.ErrNoRoom) {
		t.Errorf("health is %v, want notes.ErrNoRoom", err)
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, note); !errors.Is(err, notes.ErrNoRoom) {
		t.Errorf("got %v, want notes.ErrNoRoom", err)
	}
	checkLength(t, store, 1)
	if count, err := store.Forget(t.Context(), 0); count != 0 || err != nil {
		t.Errorf("Forget: got %d, %v", count, err)
	}
	disk.avail.Store(1 << 30)
	if err := <-health; err != nil {
		t.Errorf("health is %v with space", err)
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, note); err != nil {
		t.Errorf("got %v with space", err)
	}
	checkLength(t, store, 2)
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func checkLength(t *testing.T, store notes.Store, want int) {
	t.Helper()
	if got := len(spanOf(t, store, notes.Location{}, notes.Everything)); got != want {
		t.Errorf("the log has %d notes, want %d", got, want)
	}
}

func TestMaxBytesUntilForget(t *testing.T) {
	t.Parallel()
	const bound = 200 << 20
	health := make(chan error, 10)
	store := open(t, pebblestore.Options{Dir: t.TempDir(), MaxBytes: bound, Health: func(err error) { health <- err }})
	large := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{}) // incompressible
	kept := 0
	for {
		_, _ = random.Read(large)
		_, err := notes.Append(t.Context(), store, notes.Location{}, notes.Note{Time: 1, Encoded: append([]byte(nil), large...)})
		if errors.Is(err, notes.ErrNoRoom) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if kept++; kept > 300 {
			t.Fatal("the size of the folder is not limited")
		}
	}
	if size := store.Size(); size > bound*5/4 {
		t.Errorf("the folder has %d bytes, more than its limit of %d", size, bound)
	}
	if err := <-health; !errors.Is(err, notes.ErrNoRoom) {
		t.Errorf("health is %v", err)
	}
	if count, err := store.Forget(t.Context(), 2); count != kept || err != nil {
		t.Errorf("Forget: got %d, %v, want %d", count, err, kept)
	}
	select {
	case err := <-health:
		if err != nil {
			t.Errorf("health is %v after all was forgotten", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("the space is not reclaimed: the folder has %d bytes", store.Size())
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}
