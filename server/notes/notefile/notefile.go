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

	"example.com/routeguide/internal/textfile"
	"example.com/routeguide/server/notes"
)

// maxAhead is how many notes an import has on their way to the store at once.
const maxAhead = 10_000

// Export writes all notes of a store. Those that come in meanwhile may or may not be among them, but
// each log is written as it was at some time. Progress, unless it is nil, is called with the number
// of notes so far.
func Export(ctx context.Context, store notes.Store, to io.Writer, progress func(notes int)) (count int, err error) {
	buffered := bufio.NewWriterSize(to, 1<<16)
	for at, err := range store.Locations(ctx) {
		if err != nil {
			return count, err
		}
		for chunk, err := range store.Range(ctx, at, notes.Everything) {
			if err != nil {
				return count, err
			}
			for _, note := range chunk {
				text, err := marshal(at, note)
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

// Import adds the notes of a file to a store, with their times, in the order of the file, which must
// have the notes of a location together. Empty lines are passed over. Each other line must keep the rules of
// RouteChat, with texts of up to maxText bytes; 0 is no bound. An error names the line, and the byte within it.
//
// It can be repeated, after a crash too: a note that is in the log of its location already, with the
// same time and to the byte the same, is not added again. Should it find such a note after one that it
// has added, which happens when the store has refused some notes of a former import, it stops. For this it remembers 16 bytes for each
// note that the store has at the location that is imported. If a file has a note twice, the store gets
// it twice.
//
// Progress, unless it is nil, is called with the number of notes read so far. Import returns how many
// it has added, and how many were there.
func Import(ctx context.Context, store notes.Store, from io.Reader, maxText int, progress func(notes int)) (added, there int, err error) {
	ahead := newAhead()
	importer := importer{store: store, maxText: maxText, seed: maphash.MakeSeed(), ahead: ahead}
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
			copy(text, "   ") // Bytes are still counted as they are in the file.
		}
		if err == nil && len(bytes.TrimSpace(text)) > 0 {
			err = importer.add(ctx, number, text)
		}
		if err != nil {
			err = fmt.Errorf("line %d: %w", number, err)
		} else {
			err = ahead.failed()
		}
		if progress != nil && number%1000 == 0 {
			progress(number)
		}
	}
	kept, failure := ahead.wait()
	if err == nil && failure != nil {
		err = failure
	}
	return kept, importer.there, err
}

// importer adds notes that are not there.
type importer struct {
	store   notes.Store
	maxText int // bytes; 0 is no bound
	seed    maphash.Seed
	ahead   *ahead
	at      notes.Location
	known   map[uint64]int // by what they are: how many notes of at are there, and not in the file so far
	newer   bool           // a note was added there
	there   int
}

var errOrder = errors.New("this note is there already, and one before it was not: a former import was refused some notes, " +
	"and their order cannot be kept; import into another store")

func (i *importer) add(ctx context.Context, number int, text []byte) error {
	at, note, err := unmarshal(text, i.maxText)
	if err != nil {
		return err
	}
	if i.known == nil || at != i.at {
		if err := i.know(ctx, at); err != nil {
			return err
		}
	}
	if sum := i.sum(note); i.known[sum] > 0 {
		if i.newer {
			return errOrder
		}
		i.known[sum]--
		i.there++
		return nil
	}
	i.newer = true
	return i.ahead.append(ctx, i.store, at, note, number)
}

// know reads what is at a location.
func (i *importer) know(ctx context.Context, at notes.Location) error {
	i.at, i.known, i.newer = at, make(map[uint64]int), false
	for chunk, err := range i.store.Range(ctx, at, notes.Everything) {
		if err != nil {
			return err
		}
		for _, note := range chunk {
			i.known[i.sum(note)]++
		}
	}
	return nil
}

func (i *importer) sum(note notes.Note) uint64 {
	var hash maphash.Hash
	hash.SetSeed(i.seed)
	maphash.WriteComparable(&hash, note.Time)
	_, _ = hash.Write(note.Encoded) // It never fails.
	return hash.Sum64()
}

// ahead is the owner of notes that are on their way to the store.
type ahead struct {
	room chan struct{} // has an element for each note on its way
	way  sync.WaitGroup

	mu   sync.Mutex // guards the rest
	kept int
	err  error // the first one
}

func newAhead() *ahead {
	return &ahead{room: make(chan struct{}, maxAhead)}
}

func (a *ahead) append(ctx context.Context, store notes.Store, at notes.Location, note notes.Note, number int) error {
	select {
	case a.room <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	a.way.Add(1)
	store.Append(ctx, at, note, notes.Ticket{Owner: a, Number: uint64(number)})
	return nil
}

// Settle implements [notes.Owner].
func (a *ahead) Settle(number uint64, _ notes.Position, err error) {
	defer a.way.Done()
	a.mu.Lock()
	defer a.mu.Unlock()
	<-a.room
	if err == nil {
		a.kept++
	} else if a.err == nil {
		a.err = fmt.Errorf("line %d: %w", number, err)
	}
}

func (a *ahead) failed() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err
}

// wait waits for all notes, and returns how many are kept, and the first error.
func (a *ahead) wait() (kept int, err error) {
	a.way.Wait()
	return a.kept, a.err
}
