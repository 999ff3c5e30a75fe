package notestest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

// model is a store as simple as can be: what is left of each log.
type model map[notes.Location][]notes.Note

// forget is [notes.Store.Forget].
func (m model) forget(before, now int64) (count int) {
	for location, log := range m {
		old := 0
		for i, note := range log {
			age := notes.AgeOf(note.Time, before, now)
			if age == notes.Young {
				break
			}
			if age == notes.Old {
				old = i + 1
			}
		}
		m[location] = log[old:]
		count += old
	}
	return count
}

// agrees does random things to a store and to a model, and compares what both have.
func agrees(t *testing.T, store notes.Store, reopen func() notes.Store) notes.Store {
	const steps, future = 600, int64(1) << 62
	random := rand.New(rand.NewPCG(uint64(len(t.Name())), 7))
	kept := make(model)
	clock := int64(1)
	place := func() notes.Location {
		return notes.Location{Latitude: random.Int32N(4), Longitude: random.Int32N(3) - 1}
	}
	for step := range steps {
		switch random.IntN(12) {
		case 0:
			before := clock - random.Int64N(100)
			want := kept.forget(before, future-1)
			if count, err := store.Forget(t.Context(), before); count != want || err != nil {
				t.Fatalf("step %d: %d notes are forgotten, %v, want %d", step, count, err, want)
			}
		case 1:
			if reopen != nil && random.IntN(3) == 0 {
				store = reopen()
			}
		case 2:
			compareLocations(t, store, kept, notes.Rectangle{South: random.Int32N(3), North: 3, West: random.Int32N(3) - 1, East: random.Int32N(3) - 1})
		case 3, 4:
			compareLog(t, store, kept, place(), random)
		default:
			// Several at once, some of them dated in the future, or by a clock that was set back.
			added := make([]notes.Location, 1+random.IntN(9))
			times := make([]int64, len(added))
			for i := range added {
				clock += random.Int64N(10)
				added[i], times[i] = place(), clock
				switch random.IntN(20) {
				case 0:
					times[i] = future
				case 1:
					times[i] = max(clock-random.Int64N(200), 1)
				}
			}
			note := func(i int) notes.Note {
				return notes.Note{Time: times[i], Encoded: fmt.Appendf(nil, "%d %d", step, i)}
			}
			owner := appendAll(t, store, added, note)
			for i, location := range added {
				note := note(i)
				note.Position = owner.positions[uint64(i)]
				kept[location] = append(kept[location], note)
			}
			for _, number := range owner.alone {
				if log := kept[added[number]]; owner.positions[number] != log[0].Position {
					t.Errorf("step %d: a note at %v is said to be alone, and is not the first of %d", step, added[number], len(log))
				}
			}
		}
	}
	for location := range kept {
		compareLog(t, store, kept, location, random)
	}
	compareLocations(t, store, kept, notes.World)
	return store
}

// compareLog compares random spans of a log.
func compareLog(t *testing.T, store notes.Store, kept model, location notes.Location, random *rand.Rand) {
	t.Helper()
	log := kept[location]
	position := func() notes.Position {
		if len(log) == 0 {
			return notes.Position(random.Uint64N(100))
		}
		return log[random.IntN(len(log))].Position + notes.Position(random.IntN(2))
	}
	for _, span := range []notes.Span{
		notes.Everything,
		{Through: notes.Everything.Through, Newest: 1 + random.IntN(10)},
		{After: position(), Through: position()},
		{After: position(), Through: notes.Everything.Through, Newest: 1 + random.IntN(10)},
		{Through: position(), Newest: 1 + random.IntN(3)},
	} {
		want := span.Of(log)
		got := read(t, store, location, span)
		same := len(got) == len(want)
		for i := 0; same && i < len(got); i++ {
			same = got[i].Position == want[i].Position && got[i].Time == want[i].Time && string(got[i].Encoded) == string(want[i].Encoded)
		}
		if !same {
			t.Errorf("%v of the log of %v: got %v, want %v", span, location, got, want)
		}
	}
}

// compareLocations compares the locations in a rectangle.
func compareLocations(t *testing.T, store notes.Store, kept model, within notes.Rectangle) {
	t.Helper()
	var all []notes.Location
	for location, log := range kept {
		if len(log) > 0 {
			all = append(all, location)
		}
	}
	if got, want := list(t, store, within, nil), inside(all, within); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v has the locations %v, want %v", within, got, want)
	}
}
