package notefile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"time"

	"example.com/routeguide/internal/textfile"
	"example.com/routeguide/server/internal/notes"
)

// windowNotes is the largest number of appends of an import in flight.
const windowNotes = 10_000

const second = int64(time.Second)

// Export writes all notes of a store. Each log is written as a consistent snapshot; there is no snapshot of
// the store as a whole, so that notes appended meanwhile may be included or not. Progress, unless it is nil,
// is called with the number of notes so far.
func Export(ctx context.Context, store notes.Store, to io.Writer, progress func(notes int)) (count int, err error) {
	buffered := bufio.NewWriterSize(to, 1<<16)
	for location, err := range store.Locations(ctx, notes.World, nil) {
		if err != nil {
			return count, err
		}
		for chunk, err := range store.Range(ctx, location, notes.Everything) {
			if err != nil {
				return count, err
			}
			for _, note := range chunk {
				text, err := marshal(location, note)
				if err != nil {
					return count, err
				}
				if _, err := buffered.Write(text); err != nil {
					return count, err
				}
				count++
			}
			if progress != nil {
				progress(count)
			}
		}
	}
	return count, buffered.Flush()
}

// Import appends the notes of a file to a store, with their times, in the order of the file. The notes of a
// location must be contiguous. Empty lines are skipped. Every other line must pass the validation of
// RouteChat, with texts of up to maxText bytes; 0 is no limit. An error names the line, and the byte within
// it.
//
// Import is idempotent, also after a crash: a note that is already in the log of its location, with the same
// time and the same bytes, is not added again. If such a note follows one that was added, Import fails: a
// previous import was refused some notes, and their order cannot be kept. This takes 32 bytes of memory per
// note in the store at the location being imported. A note that is in the file twice is added twice.
//
// A note dated in the future gets the present time, less up to two seconds: otherwise it would outlive the
// notes after it. A repeated import recognizes it.
//
// Progress, unless it is nil, is called with the number of lines read so far. Import returns the number of
// notes added, the number already present, and the number added with the present time.
func Import(ctx context.Context, store notes.Store, from io.Reader, maxText int, progress func(notes int)) (added, present, redated int, err error) {
	window := newWindow()
	importer := importer{store: store, maxText: maxText, seed: maphash.MakeSeed(), window: window}
	lines := bufio.NewReaderSize(from, 1<<16)
	number := 0
	for end := false; !end && err == nil; {
		var text []byte
		text, err = lines.ReadBytes('\n')
		if end = errors.Is(err, io.EOF); end {
			err = nil
		}
		number++
		if number == 1 && bytes.HasPrefix(text, []byte(textfile.BOM)) {
			copy(text, "   ") // Keep the length: errors count the bytes of the file.
		}
		if err == nil && len(bytes.TrimSpace(text)) > 0 {
			err = importer.add(ctx, number, text)
		}
		if err != nil {
			err = fmt.Errorf("line %d: %w", number, err)
		} else {
			err = window.failed()
		}
		if progress != nil && number%1000 == 0 {
			progress(number)
		}
	}
	kept, failure := window.wait()
	if err == nil && failure != nil {
		err = failure
	}
	return kept, importer.present, importer.redated, err
}

// importer appends the notes that the store does not have.
type importer struct {
	store   notes.Store
	maxText int // bytes; 0 is no limit
	seed    maphash.Seed
	window  *window

	location  notes.Location // location being imported
	unmatched map[uint64]int // notes in the store at location that the file did not have so far, by sum
	// unmatchedRedated are the same notes by the sum that a redated note keeps: see fingerprint.
	unmatchedRedated map[uint64]int
	added            bool // a note was added at location

	present int // notes already in the store
	redated int // notes added with the present time
}

var errOrder = errors.New("this note is already in the store, but an earlier one of its location was not: " +
	"a previous import was refused some notes (import into another store to keep the order)")

func (i *importer) add(ctx context.Context, number int, text []byte) error {
	location, note, err := unmarshal(text, i.maxText)
	if err != nil {
		return err
	}
	if i.unmatched == nil || location != i.location {
		if err := i.load(ctx, location); err != nil {
			return err
		}
	}
	if i.takePresent(note) {
		if i.added {
			return errOrder
		}
		i.present++
		return nil
	}
	if now := notes.Now(); note.Time > now {
		note.Time = (now/second-1)*second + fingerprint(note.Time)
		i.redated++
	}
	i.added = true
	return i.window.append(ctx, i.store, location, note, number)
}

// takePresent returns whether the store has an unmatched copy of a note, with its own time or redated by a
// previous import, and marks the copy as matched.
func (i *importer) takePresent(note notes.Note) bool {
	sum := i.sum(note.Time, note.Encoded)
	if i.unmatched[sum] > 0 {
		i.unmatched[sum]--
		return true
	}
	sum = i.sum(fingerprint(note.Time), note.Encoded)
	if i.unmatchedRedated[sum] > 0 {
		i.unmatchedRedated[sum]--
		return true
	}
	return false
}

// fingerprint returns the nanoseconds within a second of the new time of a redated note. They are a hash of
// its original time, by which a repeated import recognizes it.
func fingerprint(time int64) int64 {
	return (time/second + time) % second
}

// load reads the log of a location.
func (i *importer) load(ctx context.Context, location notes.Location) error {
	i.location, i.unmatched, i.unmatchedRedated, i.added = location, make(map[uint64]int), make(map[uint64]int), false
	for chunk, err := range i.store.Range(ctx, location, notes.Everything) {
		if err != nil {
			return err
		}
		for _, note := range chunk {
			i.unmatched[i.sum(note.Time, note.Encoded)]++
			i.unmatchedRedated[i.sum(note.Time%second, note.Encoded)]++
		}
	}
	return nil
}

func (i *importer) sum(time int64, encoded []byte) uint64 {
	var hash maphash.Hash
	hash.SetSeed(i.seed)
	maphash.WriteComparable(&hash, time)
	_, _ = hash.Write(encoded) // never fails
	return hash.Sum64()
}

// window is the owner of the appends in flight, and limits their number.
type window struct {
	slots    chan struct{} // one element per append in flight
	settling sync.WaitGroup

	mu   sync.Mutex // guards the rest
	kept int
	err  error // first error
}

func newWindow() *window {
	return &window{slots: make(chan struct{}, windowNotes)}
}

func (w *window) append(ctx context.Context, store notes.Store, location notes.Location, note notes.Note, number int) error {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.settling.Add(1)
	store.Append(ctx, location, note, notes.Ticket{Owner: w, Number: uint64(number)})
	return nil
}

// Settle implements [notes.Owner].
func (w *window) Settle(number uint64, _ notes.Receipt, err error) {
	defer w.settling.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	<-w.slots
	if err == nil {
		w.kept++
	} else if w.err == nil {
		w.err = fmt.Errorf("line %d: %w", number, err)
	}
}

func (w *window) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// wait waits until no append is in flight. It returns the number of notes kept, and the first error.
func (w *window) wait() (kept int, err error) {
	w.settling.Wait()
	return w.kept, w.err
}
