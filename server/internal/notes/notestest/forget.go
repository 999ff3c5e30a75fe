package notestest

import (
	"context"
	"math"
	"strings"
	"sync"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

func forget(t *testing.T, store notes.Store) {
	ctx := t.Context()
	mixed, old, young := notes.Location{Latitude: 1}, notes.Location{Latitude: 2}, notes.Location{Latitude: 3}
	for _, text := range []string{"1", "22", "55555", "3", "666666"} {
		add(t, store, mixed, text)
	}
	appendAll(t, store, times(3000, old), short)
	add(t, store, young, "55555")
	if count, err := store.Forget(ctx, 5); count != 3002 || err != nil {
		t.Errorf("Forget: got %d, %v, want 3002", count, err)
	}
	check(t, read(t, store, mixed, notes.Everything), "55555", "3", "666666")
	check(t, read(t, store, old, notes.Everything))
	check(t, read(t, store, young, notes.Everything), "55555")
	if count, err := store.Forget(ctx, 5); count != 0 || err != nil {
		t.Errorf("Forget again: got %d, %v, want 0", count, err)
	}
	for location, err := range store.Locations(ctx, notes.World, nil) {
		if location == old || err != nil {
			t.Errorf("%v, %v is listed after all its notes were forgotten", location, err)
		}
	}
	last := add(t, store, old, "7777777")
	check(t, read(t, store, old, notes.Span{Through: last}), "7777777")
	check(t, read(t, store, mixed, notes.Span{Through: notes.Everything.Through, Newest: 2}), "3", "666666")
}

// fill appends a note for each character of a log: o is an old note, f a note dated in the future, and y a
// young note.
func fill(t *testing.T, store notes.Store, location notes.Location, log string) {
	t.Helper()
	appendAll(t, store, times(len(log), location), func(i int) notes.Note {
		time := map[byte]int64{'o': 1, 'y': 1000, 'f': math.MaxInt64 / 2}[log[i]]
		return notes.Note{Time: time, Encoded: []byte{log[i]}}
	})
}

// ages returns what is left of a log that fill has appended.
func ages(t *testing.T, store notes.Store, location notes.Location) string {
	t.Helper()
	var log []byte
	for _, note := range read(t, store, location, notes.Everything) {
		log = append(log, note.Encoded...)
	}
	return string(log)
}

func forgetFuture(t *testing.T, store notes.Store) {
	logs := []struct{ log, left string }{
		{"foooooo", ""},
		{"foooy", "y"},
		{"f", "f"},
		{"ff", "ff"},
		{"fy", "fy"},
		{"fyo", "fyo"},
		{"ofy", "fy"},
		{"offfff", "fffff"},
		{"ofoffoyo", "yo"},
		{"yfo", "yfo"},
		{"ffffffo", ""},
	}
	want, before := 0, make([]notes.Position, len(logs))
	for i, test := range logs {
		location := notes.Location{Latitude: int32(i)}
		fill(t, store, location, test.log)
		log := read(t, store, location, notes.Everything)
		before[i] = log[len(log)-1].Position
		want += len(test.log) - len(test.left)
	}
	for again := range 2 {
		if count, err := store.Forget(t.Context(), 1000); count != want || err != nil {
			t.Errorf("Forget %d: got %d, %v, want %d", again, count, err, want)
		}
		for i, test := range logs {
			if got := ages(t, store, notes.Location{Latitude: int32(i)}); got != test.left {
				t.Errorf("of %q, %q is left, want %q", test.log, got, test.left)
			}
		}
		want = 0
	}
	for i := range logs {
		if position := add(t, store, notes.Location{Latitude: int32(i)}, "a"); position <= before[i] {
			t.Errorf("position %d is given after %d", position, before[i])
		}
	}
}

// forgetLongFuture has logs that are longer than what a store reads or deletes in one step.
func forgetLongFuture(t *testing.T, store notes.Store) {
	const long = 17_000
	future := strings.Repeat("f", long)
	logs := []struct{ log, left string }{
		{future + "oy", "y"},
		{"o" + future, future},
		{future + "yo", future + "yo"},
		{strings.Repeat("fo", long/2) + "ff", "ff"},
	}
	want := 0
	for i, test := range logs {
		fill(t, store, notes.Location{Latitude: int32(i)}, test.log)
		want += len(test.log) - len(test.left)
	}
	if count, err := store.Forget(t.Context(), 1000); count != want || err != nil {
		t.Errorf("Forget: got %d, %v, want %d", count, err, want)
	}
	for i, test := range logs {
		if got := ages(t, store, notes.Location{Latitude: int32(i)}); got != test.left {
			t.Errorf("log %d has %d notes left, want %d", i, len(got), len(test.left))
		}
	}
}

func forgetMeanwhile(t *testing.T, store notes.Store) {
	const writers, count = 4, 400
	ctx, cancel := context.WithCancel(t.Context())
	var writing, forgetting sync.WaitGroup
	forgetting.Go(func() {
		for ctx.Err() == nil {
			if _, err := store.Forget(ctx, 2); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for writer := range writers {
		location := notes.Location{Latitude: int32(writer % 2)}
		writing.Go(func() {
			for i := range count {
				// Young notes stay, and so do the notes after them.
				text := "y"
				if i >= count/2 {
					text = "young"
				}
				receipt, err := notes.Append(ctx, store, location, draft(text))
				if err != nil {
					t.Error(err)
					return
				}
				log := read(t, store, location, notes.Span{Through: receipt.Position})
				if text == "young" && (len(log) == 0 || log[len(log)-1].Position != receipt.Position) {
					t.Errorf("the note at %d is not the last one of the range", receipt.Position)
				}
			}
		})
	}
	writing.Wait()
	cancel()
	forgetting.Wait()
	young := 0
	for latitude := range int32(2) {
		for _, note := range read(t, store, notes.Location{Latitude: latitude}, notes.Everything) {
			if string(note.Encoded) == "young" {
				young++
			}
		}
	}
	if want := writers * count / 2; young != want {
		t.Errorf("%d young notes are left, want %d", young, want)
	}
}
