package notestest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"example.com/routeguide/server/internal/notes"
)

// replay returns the changes of a partition from a number on.
func replay(t *testing.T, store notes.Store, partition int, from notes.Sequence) ([]notes.Change, error) {
	t.Helper()
	var replayed []notes.Change
	for chunk, err := range store.Changes(t.Context(), partition, from) {
		if err != nil {
			return replayed, err
		}
		if len(chunk) == 0 {
			t.Error("a chunk without changes")
		}
		for _, change := range chunk {
			if want := from + notes.Sequence(len(replayed)); change.Sequence != want {
				t.Fatalf("partition %d: change %d comes where %d is due", partition, change.Sequence, want)
			}
			replayed = append(replayed, change)
		}
	}
	return replayed, nil
}

func ends(t *testing.T, store notes.Store) []notes.Sequence {
	t.Helper()
	ends, err := store.Ends(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ends
}

// entry is a note and its place in its log.
type entry struct {
	location notes.Location
	position notes.Position
}

// write appends notes at a few locations, from several goroutines. It returns their texts.
func write(t *testing.T, store notes.Store, writers, count int) map[entry]string {
	t.Helper()
	var mu sync.Mutex
	kept := make(map[entry]string)
	var writing sync.WaitGroup
	for writer := range writers {
		writing.Go(func() {
			random := rand.New(rand.NewPCG(uint64(writer), 1))
			for i := range count {
				location := notes.Location{Latitude: random.Int32N(10), Longitude: random.Int32N(10)}
				text := fmt.Sprintf("%d %d", writer, i)
				receipt, err := notes.Append(t.Context(), store, location, draft(text))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				kept[entry{location, receipt.Position}] = text
				mu.Unlock()
			}
		})
	}
	writing.Wait()
	return kept
}

// replayable is the number of changes that every store can replay.
const replayable = 200

func changes(t *testing.T, store notes.Store) {
	start := ends(t, store)
	want := write(t, store, 4, replayable/4)
	seen := make(map[entry]bool)
	last := make(map[notes.Location]notes.Position)
	for partition, end := range ends(t, store) {
		for _, from := range []notes.Sequence{start[partition] + 1, start[partition] + 1 + (end-start[partition])/2, end + 1} {
			if got, err := replay(t, store, partition, from); err != nil || len(got) != int(end+1-from) {
				t.Errorf("partition %d: %d changes are replayed from %d to %d, %v", partition, len(got), from, end, err)
			}
		}
		replayed, err := replay(t, store, partition, start[partition]+1)
		if err != nil {
			t.Error(err)
		}
		for _, change := range replayed {
			key := entry{change.Location, change.Note.Position}
			if _, ok := want[key]; !ok || seen[key] {
				t.Errorf("a change at %v was not made, or is replayed twice", key)
			}
			seen[key] = true
			if change.Note.Position <= last[change.Location] {
				t.Errorf("the change at %v comes after the one at %d", key, last[change.Location])
			}
			last[change.Location] = change.Note.Position
		}
	}
	if len(seen) != len(want) {
		t.Errorf("%d of %d changes are replayed", len(seen), len(want))
	}
}

func changesOutOfRange(t *testing.T, store notes.Store) {
	for range 2 {
		for partition, end := range ends(t, store) {
			for _, from := range []notes.Sequence{0, end + 2, end + 1000} {
				if got, err := replay(t, store, partition, from); !errors.Is(err, notes.ErrOutOfRange) || len(got) > 0 {
					t.Errorf("changes from %d on, where %d is the last: got %d, %v, want notes.ErrOutOfRange", from, end, len(got), err)
				}
			}
		}
		add(t, store, notes.Location{}, "a")
	}
	if got, err := replay(t, store, len(ends(t, store)), 1); !errors.Is(err, notes.ErrOutOfRange) {
		t.Errorf("partition %d: got %v, %v, want notes.ErrOutOfRange", len(ends(t, store)), got, err)
	}
}

// listener collects announcements.
type listener struct {
	mu    sync.Mutex // guards the rest
	heard map[entry]string
	last  map[int]notes.Sequence // last number announced, by partition
	errs  []error
	more  chan struct{} // has an element after an announcement
}

func newListener() *listener {
	return &listener{heard: make(map[entry]string), last: make(map[int]notes.Sequence), more: make(chan struct{}, 1)}
}

func (l *listener) announce(announcement notes.Announcement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if announcement.Missed {
		l.errs = append(l.errs, fmt.Errorf("partition %d has missed changes", announcement.Partition))
	}
	for _, change := range announcement.Changes {
		if last, ok := l.last[announcement.Partition]; ok && change.Sequence != last+1 {
			l.errs = append(l.errs, fmt.Errorf("partition %d: %d is announced after %d", announcement.Partition, change.Sequence, last))
		}
		l.last[announcement.Partition] = change.Sequence
		l.heard[entry{change.Location, change.Note.Position}] = string(change.Note.Encoded)
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// await waits until the notes have been announced.
func (l *listener) await(t *testing.T, want map[entry]string) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		l.mu.Lock()
		missing := 0
		for key, text := range want {
			if heard, ok := l.heard[key]; !ok {
				missing++
			} else if heard != text {
				t.Errorf("the note at %v is announced as %q, and is %q", key, heard, text)
			}
		}
		errs := l.errs
		l.mu.Unlock()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if missing == 0 {
			return
		}
		select {
		case <-l.more:
		case <-timeout:
			t.Fatalf("%d of %d notes are not announced", missing, len(want))
		}
	}
}

func announcements(t *testing.T, store notes.Store) {
	before := write(t, store, 2, 20) // may be announced, or not
	first, second := newListener(), newListener()
	defer store.Subscribe(first.announce)()
	defer store.Subscribe(second.announce)()
	want := write(t, store, 4, 300)
	for _, listener := range []*listener{first, second} {
		listener.await(t, want)
		for partition, end := range ends(t, store) {
			if last, ok := listener.last[partition]; ok && last != end {
				t.Errorf("partition %d ends with %d, and %d was announced last", partition, end, last)
			}
		}
	}
	// A note that is kept already is no change.
	identified := identified("id", "text")
	position := appended(t, store, notes.Location{}, identified).Position
	appended(t, store, notes.Location{}, identified)
	next := add(t, store, notes.Location{}, "the next")
	want[entry{notes.Location{}, position}], want[entry{notes.Location{}, next}] = "text", "the next"
	first.await(t, want)
	for key, text := range first.heard {
		if want[key] != text && before[key] != text {
			t.Errorf("%q was announced at %v", text, key)
		}
	}
}

func unsubscribed(t *testing.T, store notes.Store) {
	staying, leaving := newListener(), newListener()
	unsubscribe := store.Subscribe(leaving.announce)
	defer store.Subscribe(staying.announce)()
	want := write(t, store, 1, 10)
	leaving.await(t, want)
	unsubscribe()
	heard := len(leaving.heard) // No lock: it is called no more.
	maps.Copy(want, write(t, store, 2, 50))
	staying.await(t, want)
	if len(leaving.heard) != heard {
		t.Errorf("%d notes were announced after the end of the subscription", len(leaving.heard)-heard)
	}
}
