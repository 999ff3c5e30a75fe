package notestest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

func order(t *testing.T, store notes.Store) {
	here, elsewhere := notes.Location{Latitude: -1, Longitude: 7}, notes.Location{Latitude: -1, Longitude: 8}
	for _, text := range []string{"a", "b\x00\xff", "c"} {
		add(t, store, here, text)
		add(t, store, elsewhere, "not "+text)
	}
	check(t, read(t, store, here, notes.Everything), "a", "b\x00\xff", "c")
	check(t, read(t, store, elsewhere, notes.Everything), "not a", "not b\x00\xff", "not c")
}

// receipts is the owner of notes that are appended without waiting.
type receipts struct {
	settled   sync.WaitGroup
	mu        sync.Mutex // guards the rest
	positions map[uint64]notes.Position
	alone     []uint64 // numbers of the notes that are alone
	errs      []error
}

func (r *receipts) Settle(number uint64, receipt notes.Receipt, err error) {
	defer r.settled.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, twice := r.positions[number]; twice {
		err = errors.Join(err, fmt.Errorf("note %d is settled twice", number))
	}
	r.positions[number] = receipt.Position
	if receipt.Alone {
		r.alone = append(r.alone, number)
	}
	if err != nil {
		r.errs = append(r.errs, err)
	}
}

// appendAll appends a note at each location, without waiting for it. The receipts have the index of the location.
func appendAll(t *testing.T, store notes.Store, locations []notes.Location, note func(i int) notes.Note) *receipts {
	t.Helper()
	owner := &receipts{positions: make(map[uint64]notes.Position)}
	owner.settled.Add(len(locations))
	for i, location := range locations {
		store.Append(t.Context(), location, note(i), notes.Ticket{Owner: owner, Number: uint64(i)})
	}
	owner.settled.Wait()
	if err := errors.Join(owner.errs...); err != nil {
		t.Fatal(err)
	}
	return owner
}

// times returns a location a number of times.
func times(count int, location notes.Location) []notes.Location {
	return slices.Repeat([]notes.Location{location}, count)
}

// short returns a note for [appendAll].
func short(int) notes.Note { return draft("a") }

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
