package main

import (
	"context"
	"fmt"
	"os"

	"example.com/routeguide/internal/places"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

const (
	// legNotes is the number of notes for which growing reports.
	legNotes = 1_000_000
	// longLogs is the number of logs that get longNotes notes while the folder grows, from the first note to the last.
	longLogs  = 20
	longNotes = 1000
)

// grow appends notes to the folder, which is open, until it has b.Grow of them, besides those of the long logs.
func (b *bench) grow(ctx context.Context, store *pebblestore.Store) error {
	// The number of changes is at least the number of the last note: no location is used again.
	ends, err := store.Ends(ctx)
	if err != nil {
		return err
	}
	for _, end := range ends {
		b.number.Add(int64(end))
	}
	if b.number.Load() < b.Grow {
		fmt.Fprintf(b.stdout, "growing from %d to %d notes\n", b.number.Load(), b.Grow)
	}
	freeMemory()
	for first := b.number.Load(); first < b.Grow; {
		limit := min(first+legNotes, b.Grow)
		result, err := b.measure(ctx, store, limit, []int{os.Getpid()})
		if err != nil {
			return err
		}
		if err := b.extendLongLogs(ctx, store, first, limit); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		fmt.Fprintf(b.stdout, "%d notes: %.0f notes/s, %.2f us of CPU and %.0f bytes written a note, %.0f MiB resident at the most, %.0f anonymous, folder of %.0f MiB\n",
			limit, result.rate(), result.cost(), float64(result.written)/float64(result.notes), mebibytes(result.resident), mebibytes(result.anonymous), mebibytes(store.Size()))
		first = limit
	}
	return nil
}

// longLog returns the location of a long log.
func (b *bench) longLog(log int) notes.Location {
	latitude, longitude := places.Generator{Seed: ^b.Seed}.At(int64(log))
	return notes.Location{Latitude: latitude, Longitude: longitude}
}

// extendLongLogs appends to the long logs, without reading replies, what they are due once the folder has grown from first to limit.
func (b *bench) extendLongLogs(ctx context.Context, store notes.Store, first, limit int64) error {
	for number := longNotes * first / b.Grow; number < longNotes*limit/b.Grow; number++ {
		for log := range longLogs {
			location := b.longLog(log)
			if _, err := notes.Append(ctx, store, location, b.noteAt(location, number)); err != nil {
				return err
			}
		}
	}
	return nil
}
