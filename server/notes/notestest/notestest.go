// Package notestest is the contract of a store of notes as a set of tests, which every form of it
// passes.
package notestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"example.com/routeguide/server/notes"
)

// all is beyond every position.
const all notes.Position = math.MaxUint64

// Run tests that the stores that newStore returns keep the contract of [notes.Store]. Each store
// must be empty; Run closes it.
func Run(t *testing.T, newStore func(t *testing.T) notes.Store) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, notes.Store){
		"an unknown location has an empty log":           emptyLog,
		"notes come back as they were, oldest first":     order,
		"a range begins after and ends at its positions": bounds,
		"writers at shared locations see one order":      oneOrder,
		"a long log comes in bounded chunks":             longLog,
		"a range can be left early":                      leftEarly,
		"a range ends with its context":                  cancelled,
		"use after Close is an error":                    closed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t)
			t.Cleanup(func() {
				if err := store.Close(); err != nil {
					t.Error(err)
				}
			})
			test(t, store)
		})
	}
}

// read returns the notes of a range.
func read(t *testing.T, store notes.Store, at notes.Location, after, upto notes.Position) []notes.Note {
	t.Helper()
	var log []notes.Note
	for chunk, err := range store.Range(t.Context(), at, after, upto) {
		if err != nil {
			t.Fatal(err)
		}
		if len(chunk) == 0 {
			t.Error("a chunk without notes")
		}
		for _, note := range chunk {
			note.Encoded = bytes.Clone(note.Encoded) // The chunk is valid until the next one only.
			log = append(log, note)
		}
	}
	return log
}

func add(t *testing.T, store notes.Store, at notes.Location, text string) notes.Position {
	t.Helper()
	position, err := notes.Append(t.Context(), store, at, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return position
}

func check(t *testing.T, log []notes.Note, want ...string) {
	t.Helper()
	var got []string
	for i, note := range log {
		got = append(got, string(note.Encoded))
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
	check(t, read(t, store, notes.Location{}, 0, all))
}

func order(t *testing.T, store notes.Store) {
	here, there := notes.Location{Latitude: -1, Longitude: 7}, notes.Location{Latitude: -1, Longitude: 8}
	for _, text := range []string{"a", "b\x00\xff", "c"} {
		add(t, store, here, text)
		add(t, store, there, "not "+text)
	}
	check(t, read(t, store, here, 0, all), "a", "b\x00\xff", "c")
	check(t, read(t, store, there, 0, all), "not a", "not b\x00\xff", "not c")
}

func bounds(t *testing.T, store notes.Store) {
	here := notes.Location{Longitude: 1}
	a, b, c := add(t, store, here, "a"), add(t, store, here, "b"), add(t, store, here, "c")
	if a == 0 {
		t.Error("the first position is 0")
	}
	check(t, read(t, store, here, 0, a), "a")
	check(t, read(t, store, here, 0, b), "a", "b")
	check(t, read(t, store, here, a, c), "b", "c")
	check(t, read(t, store, here, c, all))
	check(t, read(t, store, here, b, b))
	check(t, read(t, store, here, c, a))
}

// receipts is the owner of notes that are written ahead.
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
	at := func(i int) notes.Location { return notes.Location{Latitude: int32(i % locations)} }
	var writing sync.WaitGroup
	owners := make([]*receipts, writers)
	for writer := range writers {
		owner := &receipts{positions: make(map[uint64]notes.Position)}
		owners[writer] = owner
		owner.settled.Add(count)
		writing.Go(func() {
			for i := range count {
				store.Append(t.Context(), at(i), fmt.Appendf(nil, "%d %d", writer, i), notes.Ticket{Owner: owner, Number: uint64(i)})
				if i%50 == 0 {
					// What is read while others write is a prefix: it never changes any more.
					first := read(t, store, at(i), 0, all)
					second := read(t, store, at(i), 0, all)
					for j, note := range first {
						if string(second[j].Encoded) != string(note.Encoded) || second[j].Position != note.Position {
							t.Errorf("note %d of %v has changed from %q to %q", j, at(i), note.Encoded, second[j].Encoded)
						}
					}
				}
			}
			owner.settled.Wait()
		})
	}
	writing.Wait()
	kept := 0
	next := make(map[string]int) // by writer and location: the next number to see there
	for i := range locations {
		log := read(t, store, at(i), 0, all)
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
		store.Append(t.Context(), notes.Location{}, fmt.Appendf(nil, "%0*d", size, i), notes.Ticket{Owner: owner, Number: uint64(i)})
	}
	owner.settled.Wait()
	if err := errors.Join(owner.errs...); err != nil {
		t.Fatal(err)
	}
	chunks, seen := 0, 0
	for chunk, err := range store.Range(t.Context(), notes.Location{}, 0, all) {
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
}

func leftEarly(t *testing.T, store notes.Store) {
	for i := range 10 {
		add(t, store, notes.Location{}, fmt.Sprint(i))
	}
	for range store.Range(t.Context(), notes.Location{}, 0, all) {
		break
	}
	add(t, store, notes.Location{}, "still works")
}

func cancelled(t *testing.T, store notes.Store) {
	add(t, store, notes.Location{}, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var last error
	for chunk, err := range store.Range(ctx, notes.Location{}, 0, all) {
		if err == nil {
			t.Errorf("got %d notes after the context had ended", len(chunk))
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", last)
	}
}

func closed(t *testing.T, store notes.Store) {
	add(t, store, notes.Location{}, "a")
	for range 2 {
		if err := store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, []byte("b")); !errors.Is(err, notes.ErrClosed) {
		t.Errorf("Append: got %v, want notes.ErrClosed", err)
	}
	var last error
	for _, err := range store.Range(t.Context(), notes.Location{}, 0, all) {
		last = err
	}
	if !errors.Is(last, notes.ErrClosed) {
		t.Errorf("Range: got %v, want notes.ErrClosed", last)
	}
}
