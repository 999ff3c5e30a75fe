package pebblestore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// faultVariable makes this test binary run writeUntil in place of the tests.
const faultVariable = "PEBBLESTORE_FAULT"

func TestMain(m *testing.M) {
	if fault := os.Getenv(faultVariable); fault != "" {
		writeUntil(fault)
		return
	}
	goleak.VerifyTestMain(m)
}

func text(writer, i int) string { return fmt.Sprintf("%02d-%06d", writer, i) }

// checkAnswered fails unless the store has every answered note once, and the notes of each writer in order. A
// writer appends to one location; answered is the number of notes per writer that must be there.
func checkAnswered(t *testing.T, store notes.Store, answered []int) {
	t.Helper()
	for writer, count := range answered {
		next := 0
		for chunk, err := range store.Range(t.Context(), notes.Location{Latitude: int32(writer % 2)}, notes.Everything) {
			if err != nil {
				t.Fatal(err)
			}
			for _, note := range chunk {
				if !strings.HasPrefix(string(note.Encoded), fmt.Sprintf("%02d-", writer)) {
					continue
				}
				if got, want := string(note.Encoded), text(writer, next); got != want {
					t.Fatalf("got %s, want %s", got, want)
				}
				next++
			}
		}
		if next < count {
			t.Errorf("%d notes of writer %d were answered, and %d are there", count, writer, next)
		}
	}
}

// After a loss of power, the disk has everything that was synced and any part of the rest. The file system is
// cloned during the writes.
func TestAppendSurvivesPowerLoss(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		disk := vfs.NewCrashableMem()
		store := open(t, pebblestore.Options{Dir: "notes", FS: disk})
		const writers = 4
		var answered [writers]atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var writing sync.WaitGroup
		for writer := range writers {
			writing.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					note := notes.Note{Time: 1, Encoded: []byte(text(writer, i))}
					if _, err := notes.Append(ctx, store, notes.Location{Latitude: int32(writer % 2)}, note); err != nil {
						return
					}
					answered[writer].Store(int64(i + 1))
				}
			})
		}
		for answered[0].Load() < random.Int64N(200) {
			time.Sleep(time.Millisecond)
		}
		certain := make([]int, writers)
		for writer := range writers {
			certain[writer] = int(answered[writer].Load())
		}
		clone := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed%3) * 40, RNG: random})
		cancel()
		writing.Wait()
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		after := open(t, pebblestore.Options{Dir: "notes", FS: clone})
		checkAnswered(t, after, certain)
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// awaySuffix is the suffix of a folder that was moved.
const awaySuffix = ".away"

// writeUntil appends notes and prints those that are answered, until the fault ends the process. A fault is
// "KIND NTH DIR": the kind of the operation that fails, its number, and the folder of the store.
func writeUntil(fault string) {
	kind, rest, _ := strings.Cut(fault, " ")
	number, dir, _ := strings.Cut(rest, " ")
	nth, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		panic(err)
	}
	var armed atomic.Bool
	var count atomic.Int64
	triggered := make(chan struct{})
	trigger := sync.OnceFunc(func() { close(triggered) })
	disk := &smallDisk{}
	disk.avail.Store(1 << 30)
	disk.FS = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		hit := false
		switch kind {
		case "write":
			hit = op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log")
		case "sync":
			hit = (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo) && strings.HasSuffix(op.Path, ".log")
		case "full":
			if armed.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") && count.Add(1) >= nth {
				disk.avail.Store(0) // Permanently: Close must give up at its deadline.
				trigger()
				return syscall.ENOSPC
			}
		case "away":
			making := op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite
			if armed.Load() && making && strings.HasSuffix(op.Path, ".log") && count.Add(1) == nth {
				if err := os.Rename(dir, dir+awaySuffix); err != nil {
					panic(err)
				}
				trigger()
			}
		case "table":
			hit = op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst")
		}
		if hit && armed.Load() && count.Add(1) >= nth {
			return syscall.EIO
		}
		return nil
	}))
	store, err := pebblestore.Open(pebblestore.Options{Dir: dir, FS: disk, Fatal: func(err error) {
		fmt.Println("fatal:", strings.ReplaceAll(err.Error(), "\n", "\\n"))
		os.Exit(7)
	}})
	if err != nil {
		panic(err)
	}
	armed.Store(true)
	if kind == "full" || kind == "away" {
		go func() {
			<-triggered
			_ = store.Close()
		}()
	}
	padding := ""
	if kind == "table" || kind == "away" {
		padding = strings.Repeat("x", 1<<20) // Fill memtables quickly.
	}
	for i := range 100_000 {
		if _, err := notes.Append(context.Background(), store, notes.Location{Longitude: 1}, notes.Note{Time: 1, Encoded: []byte(padding + "pad")}); err != nil {
			fmt.Println("not kept:", err)
			continue
		}
		if _, err := notes.Append(context.Background(), store, notes.Location{}, notes.Note{Time: 1, Encoded: []byte(text(0, i))}); err != nil {
			fmt.Println("not kept:", err)
			continue
		}
		fmt.Println("answered", i)
	}
}

func TestFatalOnFailedWriteOrSync(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	for _, kind := range []string{"write", "sync", "table", "full", "away"} {
		for _, nth := range []int{1, 2, 17, 60} {
			if kind == "away" && nth > 2 {
				continue // A new log starts after 16 MiB of notes only.
			}
			t.Run(fmt.Sprintf("%s %d", kind, nth), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "notes")
				child := exec.Command(os.Args[0])
				child.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", faultVariable, kind, nth, dir))
				printed, err := child.CombinedOutput()
				exit, ok := errors.AsType[*exec.ExitError](err)
				if !ok || exit.ExitCode() != 7 {
					t.Fatalf("the process ended with %v:\n%s", err, printed)
				}
				if kind == "away" {
					rename(t, dir+awaySuffix, dir)
				}
				if !regexp.MustCompile(`(?m)^fatal: the store of notes cannot be (written.*(input/output error|no space left on device)|reached.*no such file)`).Match(printed) {
					t.Errorf("the process did not say why it ended:\n%s", printed)
				}
				answered := len(regexp.MustCompile(`(?m)^answered`).FindAll(printed, -1))
				t.Logf("%d notes were answered", answered)
				store := open(t, pebblestore.Options{Dir: dir})
				checkAnswered(t, store, []int{answered})
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

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
	got := 0
	for chunk, err := range store.Range(t.Context(), notes.Location{}, notes.Everything) {
		if err != nil {
			t.Fatal(err)
		}
		got += len(chunk)
	}
	if got != want {
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
