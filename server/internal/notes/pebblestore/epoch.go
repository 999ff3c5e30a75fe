package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"example.com/routeguide/server/internal/notes"
)

const (
	// An epoch is complete when it has epochNotes notes, by default, or epochBytes bytes of keys and values, whatever comes
	// first.
	epochNotes = 1 << 22
	epochBytes = 400 << 20
)

// An epoch is a run of consecutive positions. The keys of its notes are apart from those of other epochs, so that the
// engine merges an epoch only with itself: the cost of a note does not grow with the store. The newest epoch is the
// active one: it takes the new notes.
type epoch struct {
	number uint32
	first  notes.Position
	// filter has the locations of the epoch.
	filter atomic.Pointer[filter]
	// oldest is the time of the oldest note, or math.MaxInt64 if there is none.
	oldest atomic.Int64
	// erased is the number of bytes that Forget has deleted and whose space is not reclaimed.
	erased atomic.Int64
	// finished is true once the finisher, which owns it, has nothing left to do.
	finished bool
}

// start and end are the bounds of the keys of the epoch's notes.
func (e *epoch) start() []byte { return appendEpoch(nil, noteTag, e.number) }

func (e *epoch) end() []byte {
	if e.number == math.MaxUint32 {
		return []byte{noteTag + 1}
	}
	return appendEpoch(nil, noteTag, e.number+1)
}

func (e *epoch) key() []byte { return appendEpoch(nil, epochTag, e.number) }

func (e *epoch) value() []byte {
	value := binary.BigEndian.AppendUint64(nil, uint64(e.first))
	return binary.BigEndian.AppendUint64(value, uint64(e.oldest.Load()))
}

// epochs is the list of epochs, oldest first. It is immutable.
type epochs []*epoch

func (e epochs) active() *epoch { return e[len(e)-1] }

// of returns the epochs that may have notes of a location with positions in a span.
func (e epochs) of(z uint64, span notes.Span) epochs {
	if span.After >= span.Through {
		return nil
	}
	var found epochs
	for i, epoch := range e {
		before := epoch.first > span.Through
		after := i+1 < len(e) && e[i+1].first <= span.After+1
		if !before && !after && epoch.filter.Load().has(z) {
			found = append(found, epoch)
		}
	}
	return found
}

// state is what the store keeps about itself in each commit group.
type state struct {
	last   notes.Position // last position assigned
	bytes  int64          // keys and values of the active epoch
	oldest int64          // time of the oldest note of the active epoch
}

func (s state) value() []byte {
	value := binary.BigEndian.AppendUint64(nil, uint64(s.last))
	value = binary.BigEndian.AppendUint64(value, uint64(s.bytes))
	return binary.BigEndian.AppendUint64(value, uint64(s.oldest))
}

func readState(db *pebble.DB) (state, error) {
	value, closer, err := db.Get(lastKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return state{oldest: math.MaxInt64}, nil
	}
	if err != nil {
		return state{}, damaged(err)
	}
	defer closer.Close()
	if len(value) != 24 {
		return state{}, fmt.Errorf("%w: the last position has %d bytes", notes.ErrDamaged, len(value))
	}
	return state{
		last:   notes.Position(binary.BigEndian.Uint64(value)),
		bytes:  int64(binary.BigEndian.Uint64(value[8:])),
		oldest: int64(binary.BigEndian.Uint64(value[16:])),
	}, nil
}

// readEpochs returns the epochs of a store, without their filters: none of a new one.
func readEpochs(db *pebble.DB, state state) (epochs, error) {
	iterator, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{epochTag}, UpperBound: []byte{epochTag + 1}})
	if err != nil {
		return nil, damaged(err)
	}
	defer iterator.Close()
	var list epochs
	for valid := iterator.First(); valid; valid = iterator.Next() {
		value, err := iterator.ValueAndErr()
		if err != nil {
			return nil, damaged(err)
		}
		if len(iterator.Key()) != epochSize || len(value) != 16 {
			return nil, fmt.Errorf("%w: the epoch %x is %x", notes.ErrDamaged, iterator.Key(), value)
		}
		epoch := &epoch{number: binary.BigEndian.Uint32(iterator.Key()[1:]), first: notes.Position(binary.BigEndian.Uint64(value))}
		epoch.oldest.Store(int64(binary.BigEndian.Uint64(value[8:])))
		list = append(list, epoch)
	}
	if len(list) > 0 {
		list.active().oldest.Store(state.oldest)
	}
	return list, damaged(iterator.Error())
}

// loadFilters gives each epoch its filter: from its file or, if that is missing or damaged, from the notes.
func (s *Store) loadFilters(list epochs, last notes.Position) error {
	s.removeOldFilters(list[:len(list)-1])
	for i, epoch := range list {
		end := last
		if epoch != list.active() {
			end = list[i+1].first - 1
			loaded, err := loadFilter(s.fs, s.dir, epoch, s.epochNotes)
			if err == nil {
				epoch.filter.Store(loaded)
				epoch.finished = true
				continue
			}
			if !errors.Is(err, fs.ErrNotExist) {
				s.logger.Warn("building a filter of the notes again", "err", err)
			}
		}
		filter, err := s.buildFilter(epoch, end)
		if err != nil {
			return err
		}
		epoch.filter.Store(filter)
		if epoch != list.active() {
			// At once, so that the heap has room for the next one.
			if err := s.saveFilter(epoch); err != nil {
				s.logger.Warn("a filter of the notes could not be saved", "err", err)
			}
		}
	}
	return nil
}

// buildFilter returns a filter of the locations of an epoch whose last position is end.
func (s *Store) buildFilter(epoch *epoch, end notes.Position) (*filter, error) {
	built := newFilter(s.epochNotes)
	complete, err := s.filterFromChanges(built, epoch.first, end)
	if !complete && err == nil {
		err = s.filterFromNotes(built, epoch)
	}
	if errors.Is(err, notes.ErrDamaged) {
		// Reads where the damage is will say so. The other notes can be read.
		s.logger.Error("the store of notes is damaged: an epoch gets no filter", "epoch", epoch.number, "err", err)
		return &filter{}, nil
	}
	return built, err
}

// removeOldFilters deletes the files of filters that belong to no complete epoch.
func (s *Store) removeOldFilters(list epochs) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return
	}
	known := make(map[string]bool)
	for _, epoch := range list {
		known[filepath.Base(filterName(s.fs, s.dir, epoch))] = true
	}
	for _, name := range names {
		if strings.Contains(name, ".bloom") && !known[name] {
			_ = s.fs.Remove(s.fs.PathJoin(s.dir, name)) // It is of no use, but does no harm.
		}
	}
}

// filterFromChanges adds the locations of the changes from a number through another one. It returns false if some of
// these changes are not there.
func (s *Store) filterFromChanges(filter *filter, first, last notes.Position) (complete bool, err error) {
	next := first
	err = s.iterateChanges(notes.Sequence(first), func(from notes.Sequence, locations []byte) bool {
		if notes.Position(from) > next {
			return false
		}
		for ; len(locations) > 0; locations = locations[8:] {
			if notes.Position(from) == next && next <= last {
				filter.add(binary.BigEndian.Uint64(locations))
				next++
			}
			from++
		}
		return next <= last
	})
	if errors.Is(err, notes.ErrDamaged) {
		return false, nil // The notes themselves may be readable.
	}
	return next > last, err
}

// filterFromNotes adds the locations of an epoch's notes. It reads all of them, at some millions a second.
func (s *Store) filterFromNotes(filter *filter, epoch *epoch) error {
	start := time.Now()
	iterator, err := s.db.NewIter(&pebble.IterOptions{LowerBound: epoch.start(), UpperBound: epoch.end()})
	if err != nil {
		return damaged(err)
	}
	defer iterator.Close()
	count := 0
	for valid := iterator.First(); valid; valid = iterator.NextPrefix() {
		z, _, err := parseKey(iterator.Key())
		if err != nil {
			return err
		}
		filter.add(z)
		count++
	}
	if count > 0 {
		s.logger.Info("built a filter of the notes from the notes", "epoch", epoch.number, "locations", count, "took", time.Since(start).Round(time.Millisecond))
	}
	return damaged(iterator.Error())
}

// finish makes a complete epoch cheap to keep and to read: it merges the epoch's tables, and saves its filter.
func (s *Store) finish(ctx context.Context, epoch *epoch) {
	err := s.db.Compact(ctx, epoch.start(), epoch.end(), false)
	if ctx.Err() != nil {
		return
	}
	unsaved := s.saveFilter(epoch)
	epoch.finished = unsaved == nil
	if err = errors.Join(err, unsaved); err != nil {
		// All is well, except that the filter stays on the heap, and the next start may have to build it again.
		s.logger.Warn("an epoch of the notes could not be finished", "err", err)
	}
}

// saveFilter moves the filter of a complete epoch from the heap to a file that is mapped into memory. It does not wait
// for space on the disk, and is not called concurrently.
func (s *Store) saveFilter(epoch *epoch) error {
	filter := epoch.filter.Load()
	if filter.saved || filter.words == nil {
		return nil
	}
	if err := s.folder.check(); err != nil {
		return err
	}
	if err := filter.save(s.fs, s.dir, epoch); err != nil {
		return err
	}
	mapped, err := loadFilter(s.fs, s.dir, epoch, s.epochNotes)
	if err != nil {
		return err
	}
	epoch.filter.Store(mapped)
	if !slices.Contains(*s.epochs.Load(), epoch) {
		s.removeFilter(epoch) // It was dropped meanwhile.
	}
	return nil
}

// finisher finishes complete epochs until ctx ends: those that the last process has left, and those that the committer
// completes. What has failed is tried again when the next epoch is complete.
func (s *Store) finisher(ctx context.Context) {
	for {
		list := *s.epochs.Load()
		for _, epoch := range list[:len(list)-1] {
			if !epoch.finished && ctx.Err() == nil {
				s.finish(ctx, epoch)
			}
		}
		select {
		case <-s.completed:
		case <-ctx.Done():
			return
		}
	}
}

// drop removes a complete epoch without notes from the list, and its filter from the disk.
func (s *Store) drop(dropped *epoch) {
	var rest epochs
	for _, epoch := range *s.epochs.Load() {
		if epoch != dropped {
			rest = append(rest, epoch)
		}
	}
	s.epochs.Store(&rest)
	s.removeFilter(dropped)
}

func (s *Store) removeFilter(dropped *epoch) {
	if err := s.fs.Remove(filterName(s.fs, s.dir, dropped)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Warn("a filter without notes could not be deleted", "err", err)
	}
}
