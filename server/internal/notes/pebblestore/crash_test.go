package pebblestore_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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

// write appends notes of a writer until ctx ends, and calls answered with the number of each.
func write(ctx context.Context, store notes.Store, writer int, answered func(i int)) {
	for i := 0; ctx.Err() == nil; i++ {
		if _, err := notes.Append(ctx, store, notes.Location{Latitude: int32(writer % 2)}, identified(text(writer, i), notes.Now(), text(writer, i))); err != nil {
			return
		}
		answered(i)
	}
}

// churn appends old notes, in epochs of their own, and forgets them, until ctx ends.
func churn(ctx context.Context, store notes.Store) {
	for i := 0; ctx.Err() == nil; i++ {
		settled := make(outcomes, 30)
		for j := range cap(settled) {
			store.Append(ctx, place(1+(i+j)%100), notes.Note{Time: 1, Encoded: []byte("old")}, notes.Ticket{Owner: settled})
		}
		for range cap(settled) {
			<-settled
		}
		_, _ = store.Forget(ctx, 2)
	}
}

// checkCrashed fails unless a store has what was answered before a crash, by writer, and goes on after it.
func checkCrashed(t *testing.T, store notes.Store, answered []int) {
	t.Helper()
	checkAnswered(t, store, answered)
	last := end(t, store)
	if count, err := replay(t, store, 1); err != nil || count != int(last) {
		t.Errorf("%d of %d changes are replayed, %v", count, last, err)
	}
	for writer, count := range answered {
		if count == 0 {
			continue
		}
		location, id := notes.Location{Latitude: int32(writer % 2)}, text(writer, count-1)
		log := spanOf(t, store, location, notes.Everything)
		i := slices.IndexFunc(log, func(note notes.Note) bool { return note.ID == id })
		again, err := notes.Append(t.Context(), store, location, identified(id, notes.Now(), id))
		if i < 0 || err != nil || again.Position != log[i].Position || notes.Sequence(again.Position) > last {
			t.Errorf("%s is kept again: %v, %v", id, again, err)
		}
	}
	if receipt := keep(t, store, notes.Location{}, 1); notes.Sequence(receipt.Position) != last+1 || receipt.Alone {
		t.Errorf("the next note after %d gets %v", last, receipt)
	}
}

// After a loss of power, the disk has everything that was synced and any part of the rest. The file system is
// cloned during the writes. With epochs of a few notes, some of them are begun, finished or dropped meanwhile.
func TestAppendSurvivesPowerLoss(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	for _, epochNotes := range []int{0, 3, 20} {
		t.Run(fmt.Sprintf("epochs of %d notes", epochNotes), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(5) {
				testPowerLoss(t, epochNotes, seed)
			}
		})
	}
}

func testPowerLoss(t *testing.T, epochNotes int, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	disk := vfs.NewCrashableMem()
	options := pebblestore.Options{Dir: "notes", FS: disk}.WithEpochNotes(epochNotes)
	store := open(t, options)
	const writers = 4
	var answered [writers]atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	for writer := range writers {
		writing.Go(func() {
			write(ctx, store, writer, func(i int) { answered[writer].Store(int64(i + 1)) })
		})
	}
	writing.Go(func() { churn(ctx, store) })
	enough := random.Int64N(200)
	await(t, "answers", func() bool { return answered[0].Load() >= enough })
	certain, kept := make([]int, writers), end(t, store)
	for writer := range writers {
		certain[writer] = int(answered[writer].Load())
	}
	options.FS = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed%3) * 40, RNG: random})
	cancel()
	writing.Wait()
	shut(t, store)
	after := open(t, options)
	if last := end(t, after); last < kept {
		t.Errorf("change %d is the last one, and %d was", last, kept)
	}
	checkCrashed(t, after, certain)
	shut(t, after)
}

// appendUntilKilled appends notes of the nth writer and prints those that are answered.
func appendUntilKilled(child child) {
	store, err := pebblestore.Open(pebblestore.Options{Dir: child.Dir}.WithEpochNotes(5))
	if err != nil {
		panic(err)
	}
	go churn(context.Background(), store)
	write(context.Background(), store, int(child.Nth), func(i int) { fmt.Println("answered", i) })
}

// A process is killed several times, each time with a new writer on the same folder.
func TestAppendSurvivesKill(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	dir := t.TempDir()
	random := rand.New(rand.NewPCG(5, 6))
	var answered []int
	for writer := range 6 {
		child := child{Role: "append until killed", Nth: int64(writer), Dir: dir}.command(t)
		child.Stderr = os.Stderr
		printed, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		count, enough := 0, 1+random.IntN(150)
		for lines := bufio.NewScanner(printed); lines.Scan(); {
			if count++; count == enough {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || count < enough {
			t.Fatalf("the process ended after %d answers with %v", count, err)
		}
		answered = append(answered, count)
		store := open(t, pebblestore.Options{Dir: dir}.WithEpochNotes(5))
		checkCrashed(t, store, answered)
		shut(t, store)
	}
}

// awaySuffix is the suffix of a folder that was moved.
const awaySuffix = ".away"

// appendUntilFault appends notes and prints those that are answered, until the nth operation of a kind fails, which ends
// the process.
func appendUntilFault(child child) {
	dir := child.Dir
	var armed atomic.Bool
	var count atomic.Int64
	triggered := make(chan struct{})
	trigger := sync.OnceFunc(func() { close(triggered) })
	disk := &smallDisk{}
	disk.avail.Store(1 << 30)
	disk.FS = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		hit := false
		switch child.Kind {
		case "write":
			hit = op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log")
		case "sync":
			hit = (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo) && strings.HasSuffix(op.Path, ".log")
		case "full":
			if armed.Load() && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") && count.Add(1) >= child.Nth {
				disk.avail.Store(0) // Permanently: Close must give up at its deadline.
				trigger()
				return syscall.ENOSPC
			}
		case "away":
			making := op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite
			if armed.Load() && making && strings.HasSuffix(op.Path, ".log") && count.Add(1) == child.Nth {
				if err := os.Rename(dir, dir+awaySuffix); err != nil {
					panic(err)
				}
				trigger()
			}
		case "table":
			hit = op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst")
		}
		if hit && armed.Load() && count.Add(1) >= child.Nth {
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
	if child.Kind == "full" || child.Kind == "away" {
		go func() {
			<-triggered
			_ = store.Close()
		}()
	}
	padding := ""
	if child.Kind == "table" || child.Kind == "away" {
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
		for _, nth := range []int64{1, 2, 17, 60} {
			if kind == "away" && nth > 2 {
				continue // A new log starts after 16 MiB of notes only.
			}
			// All at once: those whose disk is full wait for seconds.
			dir := filepath.Join(t.TempDir(), "notes")
			var output bytes.Buffer
			child := child{Role: "append", Kind: kind, Nth: nth, Dir: dir}.command(t)
			child.Stdout, child.Stderr = &output, &output
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			t.Run(fmt.Sprintf("%s %d", kind, nth), func(t *testing.T) {
				t.Parallel()
				err := child.Wait()
				printed := output.Bytes()
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
