// Package notestest is the conformance test suite of [notes.Store]. Every implementation runs it.
package notestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

// An Opener opens an empty store for a test. Reopen closes the store and opens it again with its notes; it is
// nil for a store that is not durable.
type Opener func(t *testing.T) (store notes.Store, reopen func() notes.Store)

// Reopening returns a store that open opens, and a function that closes it and opens it again.
func Reopening(t *testing.T, open func() notes.Store) (store notes.Store, reopen func() notes.Store) {
	t.Helper()
	store = open()
	return store, func() notes.Store {
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		store = open()
		return store
	}
}

// Run tests the stores that open returns against the contract of [notes.Store]. It closes them.
func Run(t *testing.T, open Opener) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, notes.Store){
		"Range of an unknown location is empty":     emptyLog,
		"Range is in append order":                  order,
		"Range excludes After and includes Through": bounds,
		"Span.Newest": newest,
		"concurrent Append has one order per location": oneOrder,
		"Range of a long log is chunked":               longLog,
		"Range of huge notes":                          hugeNote,
		"Range can be left early":                      leftEarly,
		"Range ends with its context":                  cancelled,
		"Locations lists each location once":           locations,
		"Forget removes the old prefix of each log":    forget,
		"Forget with notes dated in the future":        forgetFuture,
		"Forget with long logs dated in the future":    forgetLongFuture,
		"Position is never reused":                     positions,
		"Forget during Append and Range":               forgetMeanwhile,
		"ErrClosed after Close":                        closed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, _ := open(t)
			t.Cleanup(func() {
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, store)
		})
	}
	t.Run("notes and positions survive a restart", func(t *testing.T) {
		t.Parallel()
		store, reopen := open(t)
		if reopen != nil {
			store = restarts(t, store, reopen)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// read returns the notes of a range.
func read(t *testing.T, store notes.Store, location notes.Location, span notes.Span) []notes.Note {
	t.Helper()
	var log []notes.Note
	for chunk, err := range store.Range(t.Context(), location, span) {
		if err != nil {
			t.Fatal(err)
		}
		if len(chunk) == 0 {
			t.Error("a chunk without notes")
		}
		for _, note := range chunk {
			note.Encoded = bytes.Clone(note.Encoded) // A chunk is valid until the next one only.
			log = append(log, note)
		}
	}
	return log
}

// add appends a note and returns its position. The time of the note is the length of its text.
func add(t *testing.T, store notes.Store, location notes.Location, text string) notes.Position {
	t.Helper()
	position, err := notes.Append(t.Context(), store, location, draft(text))
	if err != nil {
		t.Fatal(err)
	}
	return position
}

func draft(text string) notes.Note {
	return notes.Note{Time: int64(len(text)), Encoded: []byte(text)}
}

func check(t *testing.T, log []notes.Note, want ...string) {
	t.Helper()
	var got []string
	for i, note := range log {
		got = append(got, string(note.Encoded))
		if note.Time != int64(len(note.Encoded)) {
			t.Errorf("the time of %q is %d", note.Encoded, note.Time)
		}
		if i > 0 && note.Position <= log[i-1].Position {
			t.Errorf("position %d comes after %d", note.Position, log[i-1].Position)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the log is %q, want %q", got, want)
	}
}

func emptyLog(t *testing.T, store notes.Store) {
	add(t, store, notes.Location{Latitude: 1}, "elsewhere")
	check(t, read(t, store, notes.Location{}, notes.Everything))
}

func order(t *testing.T, store notes.Store) {
	here, elsewhere := notes.Location{Latitude: -1, Longitude: 7}, notes.Location{Latitude: -1, Longitude: 8}
	for _, text := range []string{"a", "b\x00\xff", "c"} {
		add(t, store, here, text)
		add(t, store, elsewhere, "not "+text)
	}
	check(t, read(t, store, here, notes.Everything), "a", "b\x00\xff", "c")
	check(t, read(t, store, elsewhere, notes.Everything), "not a", "not b\x00\xff", "not c")
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

// receipts is the owner of notes that are appended without waiting.
type receipts struct {
	settled   sync.WaitGroup
	mu        sync.Mutex // guards the rest
	positions map[uint64]notes.Position
	errs      []error
}

func (r *receipts) Settle(number uint64, position notes.Position, err error) {
	defer r.settled.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, twice := r.positions[number]; twice {
		err = errors.Join(err, fmt.Errorf("note %d is settled twice", number))
	}
	r.positions[number] = position
	if err != nil {
		r.errs = append(r.errs, err)
	}
}

func oneOrder(t *testing.T, store notes.Store) {
	const writers, count, locations = 16, 500, 3
	location := func(i int) notes.Location { return notes.Location{Latitude: int32(i % locations)} }
	var writing sync.WaitGroup
	owners := make([]*receipts, writers)
	for writer := range writers {
		owner := &receipts{positions: make(map[uint64]notes.Position)}
		owners[writer] = owner
		owner.settled.Add(count)
		writing.Go(func() {
			for i := range count {
				store.Append(t.Context(), location(i), draft(fmt.Sprintf("%d %d", writer, i)), notes.Ticket{Owner: owner, Number: uint64(i)})
				if i%50 == 0 {
					// A concurrent read is a prefix of the log: it never changes afterwards.
					first := read(t, store, location(i), notes.Everything)
					second := read(t, store, location(i), notes.Everything)
					for j, note := range first {
						if string(second[j].Encoded) != string(note.Encoded) || second[j].Position != note.Position {
							t.Errorf("note %d of %v has changed from %q to %q", j, location(i), note.Encoded, second[j].Encoded)
						}
					}
				}
			}
			owner.settled.Wait()
		})
	}
	writing.Wait()
	kept := 0
	next := make(map[string]int) // smallest valid number of the next note, by writer and location
	for i := range locations {
		log := read(t, store, location(i), notes.Everything)
		kept += len(log)
		for _, note := range log {
			var writer, number int
			if _, err := fmt.Sscanf(string(note.Encoded), "%d %d", &writer, &number); err != nil {
				t.Fatal(err)
			}
			if position := owners[writer].positions[uint64(number)]; position != note.Position {
				t.Errorf("note %q is at %d, its ticket says %d", note.Encoded, note.Position, position)
			}
			key := fmt.Sprint(writer, i)
			if number < next[key] {
				t.Errorf("note %q comes after number %d of the same writer", note.Encoded, next[key])
			}
			next[key] = number + 1
		}
	}
	if want := writers * count; kept != want {
		t.Errorf("%d notes are kept, want %d", kept, want)
	}
	for _, owner := range owners {
		if err := errors.Join(owner.errs...); err != nil {
			t.Error(err)
		}
	}
}

func longLog(t *testing.T, store notes.Store) {
	const count, size = 3000, 1000
	owner := &receipts{positions: make(map[uint64]notes.Position)}
	owner.settled.Add(count)
	for i := range count {
		store.Append(t.Context(), notes.Location{}, draft(fmt.Sprintf("%0*d", size, i)), notes.Ticket{Owner: owner, Number: uint64(i)})
	}
	owner.settled.Wait()
	if err := errors.Join(owner.errs...); err != nil {
		t.Fatal(err)
	}
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

func locations(t *testing.T, store notes.Store) {
	want := make(map[notes.Location]bool)
	for i := range int32(3000) {
		location := notes.Location{Latitude: i - 1500, Longitude: -i * 7}
		want[location] = true
		add(t, store, location, "a")
		if i%10 == 0 {
			add(t, store, location, "b")
		}
	}
	for _, extreme := range []notes.Location{
		{Latitude: math.MinInt32, Longitude: math.MaxInt32},
		{Latitude: math.MaxInt32, Longitude: math.MinInt32},
		{Latitude: math.MaxInt32, Longitude: math.MaxInt32},
	} {
		want[extreme] = true
		add(t, store, extreme, "a")
	}
	for location, err := range store.Locations(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if !want[location] {
			t.Errorf("%v has no notes, or is listed twice", location)
		}
		delete(want, location)
	}
	if len(want) > 0 {
		t.Errorf("%d locations are not listed", len(want))
	}
}

func forget(t *testing.T, store notes.Store) {
	ctx := t.Context()
	mixed, old, young := notes.Location{Latitude: 1}, notes.Location{Latitude: 2}, notes.Location{Latitude: 3}
	for _, text := range []string{"1", "22", "55555", "3", "666666"} {
		add(t, store, mixed, text)
	}
	for range 3000 {
		add(t, store, old, "1")
	}
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
	for location, err := range store.Locations(ctx) {
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
	owner := &receipts{positions: make(map[uint64]notes.Position)}
	owner.settled.Add(len(log))
	for i, age := range []byte(log) {
		time := map[byte]int64{'o': 1, 'y': 1000, 'f': math.MaxInt64 / 2}[age]
		note := notes.Note{Time: time, Encoded: []byte{age}}
		store.Append(t.Context(), location, note, notes.Ticket{Owner: owner, Number: uint64(i)})
	}
	owner.settled.Wait()
	if err := errors.Join(owner.errs...); err != nil {
		t.Fatal(err)
	}
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

func positions(t *testing.T, store notes.Store) {
	seen := make(map[notes.Position]bool)
	last := notes.Position(0)
	for range 5 {
		for range 3 {
			position := add(t, store, notes.Location{}, "a")
			if seen[position] || position <= last {
				t.Errorf("position %d comes after %d", position, last)
			}
			seen[position], last = true, position
		}
		if _, err := store.Forget(t.Context(), math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		check(t, read(t, store, notes.Location{}, notes.Everything))
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
				position, err := notes.Append(ctx, store, location, draft(text))
				if err != nil {
					t.Error(err)
					return
				}
				log := read(t, store, location, notes.Span{Through: position})
				if text == "young" && (len(log) == 0 || log[len(log)-1].Position != position) {
					t.Errorf("the note at %d is not the last one of the range", position)
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

func restarts(t *testing.T, store notes.Store, reopen func() notes.Store) notes.Store {
	here, elsewhere := notes.Location{Latitude: 1}, notes.Location{Longitude: 1}
	last := notes.Position(0)
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprint(i))
		position := add(t, store, here, fmt.Sprint(i))
		if position <= last {
			t.Errorf("position %d comes after %d", position, last)
		}
		last = position
		forgotten := add(t, store, elsewhere, "a")
		if i%2 == 1 {
			if _, err := store.Forget(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		store = reopen()
		check(t, read(t, store, here, notes.Everything), want...)
		if again := add(t, store, elsewhere, "a"); again <= forgotten {
			t.Errorf("position %d comes after %d", again, forgotten)
		}
		check(t, read(t, store, here, notes.Span{Through: last, Newest: 1}), fmt.Sprint(i))
	}
	if _, err := store.Forget(t.Context(), math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	store = reopen()
	if again := add(t, store, here, "b"); again <= last {
		t.Errorf("position %d comes after %d", again, last)
	}
	check(t, read(t, store, here, notes.Everything), "b")
	return store
}

func closed(t *testing.T, store notes.Store) {
	add(t, store, notes.Location{}, "a")
	for range 2 {
		if err := store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("b")); !errors.Is(err, notes.ErrClosed) {
		t.Errorf("Append: got %v, want notes.ErrClosed", err)
	}
	var last error
	for _, err := range store.Range(t.Context(), notes.Location{}, notes.Everything) {
		last = err
	}
	if !errors.Is(last, notes.ErrClosed) {
		t.Errorf("Range: got %v, want notes.ErrClosed", last)
	}
	last = nil
	for _, err := range store.Locations(t.Context()) {
		last = err
	}
	if !errors.Is(last, notes.ErrClosed) {
		t.Errorf("Locations: got %v, want notes.ErrClosed", last)
	}
	if _, err := store.Forget(t.Context(), 1); !errors.Is(err, notes.ErrClosed) {
		t.Errorf("Forget: got %v, want notes.ErrClosed", err)
	}
}
