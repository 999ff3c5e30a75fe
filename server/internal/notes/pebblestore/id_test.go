package pebblestore_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// A turnstile makes commit groups: it stops the committer after it has written one, until the notes of the next are queued.
type turnstile struct {
	armed           atomic.Bool
	entered, resume chan struct{}
}

func newTurnstile() *turnstile {
	return &turnstile{entered: make(chan struct{}), resume: make(chan struct{})}
}

func (s *turnstile) onCommit(time.Duration) {
	if s.armed.CompareAndSwap(true, false) {
		s.entered <- struct{}{}
		<-s.resume
	}
}

// outcomes is the owner of notes that get a receipt or an error each.
type outcomes chan outcome

type outcome struct {
	number  uint64
	receipt notes.Receipt
	err     error
}

func (o outcomes) Settle(number uint64, receipt notes.Receipt, err error) {
	o <- outcome{number, receipt, err}
}

// group appends notes at a location as one commit group, and returns what has become of each.
func (s *turnstile) group(t *testing.T, store notes.Store, location notes.Location, group ...notes.Note) []outcome {
	t.Helper()
	settled := make(outcomes, len(group)+1)
	s.armed.Store(true)
	store.Append(t.Context(), place(1000), notes.Note{Time: 1, Encoded: []byte("a group of its own")}, notes.Ticket{Owner: settled, Number: uint64(len(group))})
	<-s.entered
	for i, note := range group {
		store.Append(t.Context(), location, note, notes.Ticket{Owner: settled, Number: uint64(i)})
	}
	s.resume <- struct{}{}
	all := make([]outcome, len(group)+1)
	for range all {
		outcome := <-settled
		all[outcome.number] = outcome
	}
	return all[:len(group)]
}

const hour = int64(time.Hour)

func identified(id string, at int64, text string) notes.Note {
	return notes.Note{Time: at, ID: id, Encoded: []byte(text)}
}

// An ID is known for a day by the time of its note: 20 hours later it is, and 40 hours later it is not.
func TestIDLifetime(t *testing.T) {
	t.Parallel()
	turnstile := newTurnstile()
	options := pebblestore.Options{Dir: t.TempDir(), OnCommit: turnstile.onCommit}.WithEpochNotes(3)
	store := open(t, options)
	now := notes.Now()
	id := func(at int64) notes.Note { return identified("id", at, "text") }
	for i, together := range []bool{false, true} {
		var got []outcome
		if together {
			got = turnstile.group(t, store, place(i), id(now-20*hour), id(now), id(now+20*hour), id(now+40*hour))
		} else {
			for _, at := range []int64{now - 20*hour, now, now + 20*hour, now + 40*hour} {
				receipt, err := notes.Append(t.Context(), store, place(i), id(at))
				got = append(got, outcome{receipt: receipt, err: err})
				shut(t, store)
				store = open(t, options)
			}
		}
		for j, want := range []int{0, 0, 2, 2} {
			if got[j].err != nil || got[j].receipt.Position != got[want].receipt.Position || got[j].receipt.Time != got[want].receipt.Time {
				t.Errorf("in one group %t: repetition %d gets %v, want that of %d", together, j, got[j], want)
			}
		}
		if log := timesOf(t, store, place(i)); len(log) != 2 {
			t.Errorf("in one group %t: %d notes are kept, want 2", together, len(log))
		}
	}
	shut(t, store)
}

// A clock that is set back does not lose IDs.
func TestIDIsKnownAfterClockIsSetBack(t *testing.T) {
	t.Parallel()
	store := open(t, pebblestore.Options{Dir: t.TempDir()})
	defer shut(t, store)
	now := notes.Now()
	for i, back := range []int64{0, hour, 6 * hour, 11 * hour} {
		first, err := notes.Append(t.Context(), store, place(i), identified("id", now, "text"))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := notes.Append(t.Context(), store, place(i), identified("id", now-back, "text")); err != nil || again.Position != first.Position {
			t.Errorf("%d hours earlier: got %v, %v, want %v", back/hour, again, err, first)
		}
	}
}

func TestIDRecordsExpire(t *testing.T) {
	t.Parallel()
	store := open(t, pebblestore.Options{Dir: t.TempDir()})
	defer shut(t, store)
	now := notes.Now()
	for _, hours := range []int64{960, 96, 48, 36, 24, 12, 0} {
		key := pebblestore.IDKey(place(0), identified("old", now-hours*hour, "text"))
		if err := store.DB().Set(key, make([]byte, 32), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := notes.Append(t.Context(), store, place(0), identified("new", now, "text")); err != nil {
		t.Fatal(err)
	}
	iterator, err := store.DB().NewIter(&pebble.IterOptions{LowerBound: []byte{'i'}, UpperBound: []byte{'i' + 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer iterator.Close()
	left := 0
	for valid := iterator.First(); valid; valid = iterator.Next() {
		left++
	}
	if left != 5 {
		t.Errorf("%d IDs are left, want the new one and those of 36, 24, 12 and 0 hours ago", left)
	}
}

func TestIDErrDamagedIsOfOneNote(t *testing.T) {
	t.Parallel()
	turnstile := newTurnstile()
	store := open(t, pebblestore.Options{Dir: t.TempDir(), OnCommit: turnstile.onCommit})
	defer shut(t, store)
	now := notes.Now()
	damaged, intact := identified("damaged", now, "text"), identified("intact", now, "text")
	if err := store.DB().Set(pebblestore.IDKey(place(0), damaged), []byte("damage"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	got := turnstile.group(t, store, place(0), damaged, intact, damaged, intact)
	for i, want := range []error{notes.ErrDamaged, nil, notes.ErrDamaged, nil} {
		if !errors.Is(got[i].err, want) {
			t.Errorf("note %d: got %v, want %v", i, got[i].err, want)
		}
	}
	if log := timesOf(t, store, place(0)); len(log) != 1 {
		t.Errorf("%d notes are kept, want 1", len(log))
	}
}
