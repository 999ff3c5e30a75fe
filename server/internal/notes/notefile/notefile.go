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

// maxAhead is how many notes an import has on their way to the store at once.
const maxAhead = 10_000

const second = int64(time.Second)

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
// has added, which happens when the store has refused some notes of a former import, it stops. For this it remembers 32 bytes for each
// note that the store has at the location that is imported. If a file has a note twice, the store gets
// it twice.
//
// A note that is dated in the future gets the present time, less up to two seconds: otherwise it would outlive
// those behind it. It is known all the same when it is imported again.
//
// Progress, unless it is nil, is called with the number of notes read so far. Import returns how many
// it has added, how many were there, and how many it has added with the present time.
func Import(ctx context.Context, store notes.Store, from io.Reader, maxText int, progress func(notes int)) (added, there, redated int, err error) {
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
	return kept, importer.there, importer.redated, err
}

// importer adds notes that are not there.
type importer struct {
	store   notes.Store
	maxText int // bytes; 0 is no bound
	seed    maphash.Seed
	ahead   *ahead
	at      notes.Location
	known   map[uint64]int // by what they are: how many notes of at are there, and not in the file so far
	// knownRedated is known by what remains of a note that got the present time: see mark.
	knownRedated map[uint64]int
	newer        bool // a note was added there
	there        int
	redated      int
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
	if i.isThere(note) {
		if i.newer {
			return errOrder
		}
		i.there++
		return nil
	}
	if now := notes.Now(); note.Time > now {
		note.Time = (now/second-1)*second + mark(note.Time)
		i.redated++
	}
	i.newer = true
	return i.ahead.append(ctx, i.store, at, note, number)
}

// isThere returns whether the store has a note, as it is or with the present time of a former import, that
// the file did not have so far.
func (i *importer) isThere(note notes.Note) bool {
	sum := i.sum(note.Time, note.Encoded)
	if i.known[sum] > 0 {
		i.known[sum]--
		return true
	}
	sum = i.sum(mark(note.Time), note.Encoded)
	if i.knownRedated[sum] > 0 {
		i.knownRedated[sum]--
		return true
	}
	return false
}

// mark returns the nanoseconds behind the full second that a note gets whose time is in the future. They depend
// on that time: so the note is known when it is imported again, though nothing else is left of its time.
func mark(time int64) int64 {
	return (time/second + time) % second
}

// know reads what is at a location.
func (i *importer) know(ctx context.Context, at notes.Location) error {
	i.at, i.known, i.knownRedated, i.newer = at, make(map[uint64]int), make(map[uint64]int), false
	for chunk, err := range i.store.Range(ctx, at, notes.Everything) {
		if err != nil {
			return err
		}
		for _, note := range chunk {
			i.known[i.sum(note.Time, note.Encoded)]++
			i.knownRedated[i.sum(note.Time%second, note.Encoded)]++
		}
	}
	return nil
}

func (i *importer) sum(time int64, encoded []byte) uint64 {
	var hash maphash.Hash
	hash.SetSeed(i.seed)
	maphash.WriteComparable(&hash, time)
	_, _ = hash.Write(encoded) // It never fails.
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
