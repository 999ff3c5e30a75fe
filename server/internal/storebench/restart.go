package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"example.com/routeguide/internal/process"
	"example.com/routeguide/server/internal/notes"
)

const (
	// restarts is the number of times that the folder is opened in each way.
	restarts = 5
	// killAfter is the largest number of notes that the child writes before it is killed: what waits in memory for a table then.
	killAfter = 200_000
	// coldNotes is the largest number of notes that are measured after a start.
	coldNotes = 100_000
	// restReads is the number of replies that are read before memory is at rest.
	restReads = 20_000
)

// measureCold takes the cost of the first notes after the folder was opened: its caches are empty.
func (b *bench) measureCold(ctx context.Context) error {
	store, err := b.openFolder()
	if err != nil {
		return err
	}
	freeMemory()
	result, err := b.measure(ctx, store, b.number.Load()+min(coldNotes, b.Grow), []int{os.Getpid()})
	if err == nil {
		fmt.Fprintf(b.stdout, "the first %d notes after a start: %.2f us of CPU a note\n", result.notes, result.cost())
	}
	return errors.Join(err, store.Close())
}

// restart takes the time to open the folder, to replay the long logs for the first time, and the memory at rest.
func (b *bench) restart(ctx context.Context) error {
	var clean, killed, replayed times
	for range restarts {
		start := time.Now()
		store, err := b.openFolder()
		if err != nil {
			return err
		}
		clean.since(start)
		if err := store.Close(); err != nil {
			return err
		}
	}
	for i := range restarts {
		if err := b.killWriter(i); err != nil {
			return err
		}
		start := time.Now()
		store, err := b.openFolder()
		if err != nil {
			return err
		}
		killed.since(start)
		if err := store.Close(); err != nil {
			return err
		}
	}
	freeMemory()
	store, err := b.openFolder()
	if err != nil {
		return err
	}
	length := 0
	for log := range longLogs {
		start := time.Now()
		if length, err = replay(ctx, store, b.longLog(log), notes.Everything); err != nil || length == 0 {
			return errors.Join(fmt.Errorf("a long log has %d notes: %w", length, err), store.Close())
		}
		replayed.since(start)
	}
	for i := range int64(restReads) {
		location, _ := b.note(1 + b.Grow*i/restReads)
		if _, err := replay(ctx, store, location, notes.Span{Through: notes.Everything.Through, Newest: b.History}); err != nil {
			return errors.Join(err, store.Close())
		}
	}
	freeMemory()
	resident, anonymous, err := memory()
	fmt.Fprintf(b.stdout, `
folder of %.0f MiB, in the page cache as far as it fits: ms, median (min, max)
opened after a clean close: %s (%d times)
opened after kill -9: %s (%d times)
replayed %d logs of %d notes, each for the first time: %s
at rest, after %d further replies: %.0f MiB resident, %.0f anonymous
`, mebibytes(store.Size()), clean.String(), restarts, killed.String(), restarts, longLogs, length, replayed.String(), restReads, mebibytes(resident), mebibytes(anonymous))
	return errors.Join(err, store.Close())
}

// replay reads a span of a log, and returns its length.
func replay(ctx context.Context, store notes.Store, location notes.Location, span notes.Span) (length int, err error) {
	for chunk, err := range store.Range(ctx, location, span) {
		if err != nil {
			return length, err
		}
		length += len(chunk)
	}
	return length, nil
}

// killWriter starts this program again, to write to the folder at further locations, and kills it.
func (b *bench) killWriter(number int) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	writer, err := process.Start(program, "--until-killed", fmt.Sprint(min(killAfter, b.Grow)), "--dir", b.Dir, "--chats", fmt.Sprint(b.Chats), "--seed", fmt.Sprint(b.Seed+1+uint64(number)), "--history", "1")
	if err != nil {
		return err
	}
	_, err = writer.Await(`notes are written`)
	return errors.Join(err, writer.Kill())
}

// writeUntilKilled writes to the folder for as long as this process lives, and says when the first b.UntilKilled notes
// are written.
func (b *bench) writeUntilKilled(ctx context.Context) error {
	store, err := b.openFolder()
	if err != nil {
		return err
	}
	chats := &chats{bench: b, store: store, limit: b.UntilKilled}
	err = chats.run(ctx, b.Chats)
	if err == nil {
		fmt.Fprintln(b.stdout, "notes are written, and more follow")
		chats.limit = unlimited
		err = chats.run(ctx, b.Chats)
	}
	return errors.Join(err, store.Close())
}
