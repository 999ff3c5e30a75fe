package notestest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

func emptyLog(t *testing.T, store notes.Store) {
	add(t, store, notes.Location{Latitude: 1}, "elsewhere")
	check(t, read(t, store, notes.Location{}, notes.Everything))
}

func bounds(t *testing.T, store notes.Store) {
	here := notes.Location{Longitude: 1}
	a, b, c := add(t, store, here, "a"), add(t, store, here, "b"), add(t, store, here, "c")
	if a == 0 {
		t.Error("the first position is 0")
	}
	check(t, read(t, store, here, notes.Span{Through: a}), "a")
	check(t, read(t, store, here, notes.Span{Through: b}), "a", "b")
	check(t, read(t, store, here, notes.Span{After: a, Through: c}), "b", "c")
	check(t, read(t, store, here, notes.Span{After: c, Through: notes.Everything.Through}))
	check(t, read(t, store, here, notes.Span{After: b, Through: b}))
	check(t, read(t, store, here, notes.Span{After: c, Through: a}))
}

func newest(t *testing.T, store notes.Store) {
	here := notes.Location{Longitude: 1}
	a, b, c := add(t, store, here, "a"), add(t, store, here, "b"), add(t, store, here, "c")
	check(t, read(t, store, here, notes.Span{Through: c, Newest: 2}), "b", "c")
	check(t, read(t, store, here, notes.Span{Through: b, Newest: 1}), "b")
	check(t, read(t, store, here, notes.Span{Through: c, Newest: 3}), "a", "b", "c")
	check(t, read(t, store, here, notes.Span{Through: c, Newest: 100}), "a", "b", "c")
	check(t, read(t, store, here, notes.Span{After: a, Through: c, Newest: 100}), "b", "c")
	check(t, read(t, store, notes.Location{}, notes.Span{Through: c, Newest: 1}))
}

func longLog(t *testing.T, store notes.Store) {
	const count, size = 3000, 1000
	appendAll(t, store, times(count, notes.Location{}), func(i int) notes.Note { return draft(fmt.Sprintf("%0*d", size, i)) })
	chunks, seen := 0, 0
	for chunk, err := range store.Range(t.Context(), notes.Location{}, notes.Everything) {
		if err != nil {
			t.Fatal(err)
		}
		chunks++
		for _, note := range chunk {
			if want := fmt.Sprintf("%0*d", size, seen); string(note.Encoded) != want {
				t.Fatalf("note %d is %q", seen, note.Encoded)
			}
			seen++
		}
	}
	if seen != count || chunks < 2 {
		t.Errorf("got %d notes in %d chunks, want %d in several", seen, chunks, count)
	}
	last := read(t, store, notes.Location{}, notes.Span{Through: notes.Everything.Through, Newest: 700})
	if want := fmt.Sprintf("%0*d", size, count-700); len(last) != 700 || string(last[0].Encoded) != want {
		t.Errorf("the newest 700 are %d", len(last))
	}
}

func hugeNote(t *testing.T, store notes.Store) {
	huge := strings.Repeat("x", 1<<20)
	for _, text := range []string{"a", huge, "b", huge, "c"} {
		add(t, store, notes.Location{}, text)
	}
	check(t, read(t, store, notes.Location{}, notes.Everything), "a", huge, "b", huge, "c")
}

func leftEarly(t *testing.T, store notes.Store) {
	for i := range 10 {
		add(t, store, notes.Location{}, fmt.Sprint(i))
	}
	for range store.Range(t.Context(), notes.Location{}, notes.Everything) {
		break
	}
	add(t, store, notes.Location{}, "still works")
}

func cancelled(t *testing.T, store notes.Store) {
	add(t, store, notes.Location{}, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for chunk, err := range store.Range(ctx, notes.Location{}, notes.Everything) {
		if err == nil {
			t.Errorf("got %d notes after the context had ended", len(chunk))
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", last)
	}
}
