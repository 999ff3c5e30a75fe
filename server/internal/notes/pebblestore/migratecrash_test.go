package pebblestore_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// killed is a part of what is not synced: all of it, since only the process ends.
const killed = -1

// The process is killed, or power is lost, before each write of a migration, and again after that.
func TestMigrateSurvivesInterruption(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	for name, links := range map[string]bool{"hard links": true, "no hard links": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testInterruptions(t, links)
		})
	}
}

func testInterruptions(t *testing.T, links bool) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 1))
	disk := vfs.NewCrashableMem()
	written := writeOld(t, disk, "notes", 120, 2)
	migrate := func(fs vfs.FS) {
		if err := pebblestore.MigrateInPasses(pebblestore.Options{Dir: "notes", FS: fs}.WithEpochNotes(36)); err != nil {
			t.Fatal(err)
		}
	}
	reopen := func(fs vfs.FS) {
		store := open(t, pebblestore.Options{Dir: "notes", FS: fs}.WithEpochNotes(36))
		written.check(t, store)
		shut(t, store)
	}
	// The disk has any part of what is not synced. The engine, which opens the folder then, relies on a disk that does
	// not have its manifest marker before its manifest: all of it, or none.
	anyPart := []int{killed, 0, 40, 60, 100}
	first := &interruption{t: t, disk: disk, links: links, random: random, parts: anyPart}
	first.run(migrate)
	writes := first.writes
	first.parts = []int{0, 100}
	first.run(reopen)
	opened, refused := 0, 0
	for i, clone := range first.clones {
		want := written.clone()
		switch {
		case random.IntN(2) == 0:
		case want.checkOld(t, clone, "notes"):
			opened++
		default:
			refused++
		}
		again := &interruption{t: t, disk: clone, links: links, random: random, parts: anyPart, only: 1 + random.IntN(writes)}
		again.run(migrate)
		if len(again.clones) > 0 {
			clone = again.clones[random.IntN(len(again.clones))]
		} // Else it was migrated with fewer writes.
		store := open(t, pebblestore.Options{Dir: "notes", FS: clone}.WithEpochNotes(36))
		want.append(t, store, notes.Location{}, 120)
		want.check(t, store)
		shut(t, store)
		if want.checkOld(t, clone, "notes") {
			t.Error("an older version opens a migrated folder")
		}
		if t.Failed() {
			t.Fatalf("after interruption %d of %d", i, len(first.clones))
		}
	}
	t.Logf("interrupted %d times, before %d writes; an older version opened the folder %d times, and refused it %d times", len(first.clones), first.writes, opened, refused)
	if opened == 0 || refused == 0 {
		t.Error("it was not interrupted before and after the commit")
	}
}

// interruption makes clones of a file system, as interruptions before each write leave it: one before each write until the
// commit, which links the manifest, and one for each part of what is not synced from then on.
type interruption struct {
	t      *testing.T
	disk   *vfs.MemFS
	links  bool // hard links are supported
	random *rand.Rand
	parts  []int // percentages of what was not synced that the disk has, or killed
	only   int   // number of the write, from 1; 0 is each of them

	mu     sync.Mutex // guards random and the rest
	writes int
	linked bool
	clones []*vfs.MemFS
}

func (i *interruption) run(run func(vfs.FS)) {
	run(errorfs.Wrap(i.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			i.write(op.Kind)
		}
		if op.Kind == errorfs.OpLink && !i.links {
			return errors.ErrUnsupported
		}
		return nil
	})))
}

func (i *interruption) write(kind errorfs.OpKind) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.writes++; i.only != 0 && i.writes != i.only {
		return
	}
	parts := i.parts
	if i.linked = i.linked || kind == errorfs.OpLink; !i.linked {
		parts = parts[i.random.IntN(len(parts)):][:1]
	}
	for _, part := range parts {
		if part != killed {
			i.clones = append(i.clones, i.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: part, RNG: i.random}))
			continue
		}
		clone := vfs.NewCrashableMem()
		_, err := vfs.Clone(i.disk, clone, "notes", "notes", vfs.CloneSync)
		if err := errors.Join(err, syncRoot(clone)); err != nil {
			i.t.Error(err)
		}
		i.clones = append(i.clones, clone)
	}
}

func syncRoot(disk vfs.FS) error {
	root, err := disk.OpenDir("")
	if err != nil {
		return err
	}
	return errors.Join(root.Sync(), root.Close())
}

// migrateUntilFault migrates and opens a store, until the fault comes: at the nth operation on the disk, the process kills
// itself, or the disk is full.
func migrateUntilFault(child child) {
	var count atomic.Int64
	disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch {
		case op.Kind.ReadOrWrite() == errorfs.OpIsRead || count.Add(1) < child.Nth:
		case child.Kind == "kill":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case child.Kind == "full" && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst"):
			return syscall.ENOSPC
		}
		return nil
	}))
	options := pebblestore.Options{Dir: child.Dir, FS: disk, Fatal: func(err error) {
		fmt.Println("fatal:", err)
		os.Exit(7)
	}}.WithEpochNotes(1000)
	if err := pebblestore.MigrateInPasses(options); err != nil {
		panic(err)
	}
	store, err := pebblestore.Open(options)
	if err != nil {
		panic(err)
	}
	if err := store.Close(); err != nil {
		panic(err)
	}
	fmt.Println("operations:", count.Load())
}

// migrateInChild runs migrateUntilFault in another process. It returns what that printed.
func migrateInChild(t *testing.T, kind string, nth int64, dir string) (printed string, err error) {
	t.Helper()
	output, err := child{Role: "migrate", Kind: kind, Nth: nth, Dir: dir}.command(t).CombinedOutput()
	return string(output), err
}

func TestMigrateSurvivesKill(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	origin := filepath.Join(t.TempDir(), "notes")
	written := writeOld(t, vfs.Default, origin, 5000, 3)
	counting := filepath.Join(t.TempDir(), "notes")
	if err := os.CopyFS(counting, os.DirFS(origin)); err != nil {
		t.Fatal(err)
	}
	printed, err := migrateInChild(t, "kill", math.MaxInt32, counting)
	if err != nil {
		t.Fatalf("%v:\n%s", err, printed)
	}
	operations := int64(0)
	if _, err := fmt.Sscanf(printed, "operations: %d", &operations); err != nil {
		t.Fatalf("%v: %s", err, printed)
	}
	random := rand.New(rand.NewPCG(4, 4))
	for round := range 4 {
		dir := filepath.Join(t.TempDir(), "notes")
		if err := os.CopyFS(dir, os.DirFS(origin)); err != nil {
			t.Fatal(err)
		}
		want := written.clone()
		kills, refused := 0, 0
		for {
			printed, err := migrateInChild(t, "kill", 1+random.Int64N(operations), dir)
			if err == nil {
				break
			}
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%v:\n%s", err, printed)
			}
			kills++
			if round%2 == 0 && !want.checkOld(t, vfs.Default, dir) {
				refused++
			}
		}
		t.Logf("killed %d times in %d operations; an older version refused the folder %d times", kills, operations, refused)
		store := open(t, pebblestore.Options{Dir: dir}.WithEpochNotes(1000))
		want.check(t, store)
		shut(t, store)
	}
}

// The disk is full although it has reported enough space.
func TestMigrateOnFullDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "notes")
	want := writeOld(t, vfs.Default, dir, 10_000, 5)
	before := contents(t, dir)
	printed, err := migrateInChild(t, "full", 1, dir)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 7 || !strings.Contains(printed, "no space left on device") {
		t.Fatalf("the process ended with %v:\n%s", err, printed)
	}
	after := contents(t, dir)
	maps.DeleteFunc(after, func(path, _ string) bool { return filepath.Base(filepath.Dir(path)) == "migrating" })
	if !maps.Equal(before, after) {
		t.Error("the old store has changed")
	}
	store := open(t, pebblestore.Options{Dir: dir})
	want.check(t, store)
	shut(t, store)
}
