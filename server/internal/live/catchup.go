package live

import (
	"context"
	"errors"
	"iter"
	"time"

	"example.com/routeguide/server/internal/notes"
)

// firstStep is the number of changes after which a follower of a rectangle that catches up may get its first cursor. It doubles while the
// client takes them fast: one whose connection is slow, and breaks often, must get on, and others read a log in few parts.
const firstStep = 64

// catchUp sends the notes of a location that were kept after the last one that was sent. If it fails, the location is still behind.
func (f *follower) catchUp(ctx context.Context, task task) error {
	sub := task.sub
	at, err := f.catchUpFrom(ctx, sub, task.at)
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	sub.at = at
	if err != nil || sub.missed || h.gaps != task.gaps {
		f.behind = append(f.behind, sub)
	} else {
		sub.state = live
	}
	return err
}

// catchUpFrom is catchUp from a mark on. It returns the mark of the last note that was sent.
func (f *follower) catchUpFrom(ctx context.Context, sub *subscription, at mark) (mark, error) {
	if f.lineage != f.hub.lineage() {
		return at, ErrOvertaken
	}
	if sub.first != nil {
		first := *sub.first
		sub.first = nil
		var err error
		if at, err = f.sendLog(ctx, sub, mark{}, first); err != nil {
			return at, err
		}
		if at.number != uint64(first.Through) {
			return at, ErrOvertaken
		}
	}
	return f.sendLog(ctx, sub, at, notes.Everything)
}

// sendLog sends the notes of a span after the last one that was sent, and returns the mark of the new last one. It reads that one, too, to
// see that nothing after it was forgotten.
func (f *follower) sendLog(ctx context.Context, sub *subscription, at mark, span notes.Span) (mark, error) {
	// The first reply of a chat begins where the log does now.
	verified, isLater := at.number == 0 && span.Through != notes.Everything.Through, false
	span.After = notes.Position(max(at.number, 1) - 1)
	for chunk, err := range f.hub.readLog(ctx, sub.location, span) {
		if err != nil {
			return at, err
		}
		if !verified && at.number > 0 && uint64(chunk[0].Position) == at.number {
			if at.check != 0 && markOfNote(&chunk[0]) != at {
				return at, ErrOvertaken
			}
			verified = true
			if chunk = chunk[1:]; len(chunk) == 0 {
				isLater = true
				continue
			}
		}
		if !verified {
			if err := f.verify(ctx, sub, at); err != nil {
				return at, err
			}
			verified = true
		}
		if isLater {
			if err := f.verifyLast(ctx, sub.location, at); err != nil {
				return at, err
			}
		}
		if err := f.sendNotes(sub.location, chunk); err != nil {
			return at, err
		}
		f.hub.counts.delivered.Add(int64(len(chunk)))
		f.hub.counts.caughtUp.Add(int64(len(chunk)))
		at, isLater = markOfNote(&chunk[len(chunk)-1]), true
	}
	if !verified {
		return at, f.verify(ctx, sub, at)
	}
	return at, nil
}

// readLog reads a span of a log in chunks, which other followers may share.
func (h *Hub) readLog(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	if span.Newest > 0 {
		return h.options.Store.Range(ctx, location, span) // It is read as a whole: notes may come after a part.
	}
	return h.logs.all(ctx, logKey{location, span})
}

// verifyLast checks that nothing was forgotten between a chunk that has been read and the last note before it: that one is still there.
func (f *follower) verifyLast(ctx context.Context, location notes.Location, at mark) error {
	position := notes.Position(at.number)
	for _, err := range f.hub.readLog(ctx, location, notes.Span{After: position - 1, Through: position}) {
		return err
	}
	return ErrOvertaken
}

// verify checks that no note was forgotten after the last one that was sent, which is not there: retention cannot have forgotten a later
// one yet.
func (f *follower) verify(ctx context.Context, sub *subscription, at mark) error {
	store := f.hub.options.Store
	position := notes.Position(at.number)
	if at.number > 0 {
		for chunk, err := range store.Range(ctx, sub.location, notes.Span{Through: position, Newest: 1}) {
			if err != nil {
				return err
			}
			if len(chunk) > 0 {
				return ErrOvertaken // Retention forgets older notes first: the store is another one.
			}
		}
	}
	retention := f.hub.options.Retention
	switch {
	case retention > 0 && notes.Now()-sub.since > retention.Nanoseconds():
		return ErrOvertaken
	case at.number == 0 || retention > 0:
		return nil
	default:
		return ErrOvertaken
	}
}

// catchUpArea sends the notes of the changes in an area that were kept after those that were sent.
func (f *follower) catchUpArea(ctx context.Context, task task) error {
	if f.lineage != f.hub.lineage() {
		return ErrOvertaken
	}
	for partition := range task.ends {
		if err := f.catchUpPartition(ctx, task, partition); err != nil {
			return err
		}
	}
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	f.area.marks, f.area.least = task.marks, nil
	f.unmarked = true
	if f.area.final {
		f.area.marks, f.area.last = nil, task.marks
		return nil
	}
	if h.gaps != task.gaps {
		return nil
	}
	if isAhead(h.marks, task.marks) {
		return nil
	}
	f.area.marks, f.ahead = nil, nil
	if isAhead(task.marks, h.marks) {
		f.ahead = task.marks
	}
	return nil
}

// catchUpPartition sends the notes of the changes of one partition.
func (f *follower) catchUpPartition(ctx context.Context, task task, partition int) error {
	at, end := task.marks[partition], task.ends[partition]
	if at == end || at.number == end.number && (at.check == 0 || end.check == 0) {
		return nil
	}
	known, step := at.number == 0, firstStep
	for changes, err := range f.hub.replays.all(ctx, replayKey{partition, notes.Sequence(max(at.number, 1))}) {
		if errors.Is(err, notes.ErrOutOfRange) {
			return ErrOvertaken
		}
		if err != nil {
			return err
		}
		if !known {
			if first := markOfChange(&changes[0]); first.number != at.number || at.check != 0 && first != at {
				return ErrOvertaken
			}
			known = true
			changes = changes[1:]
		}
		beyond := false
		for len(changes) > 0 && uint64(changes[len(changes)-1].Sequence) > end.number {
			changes, beyond = changes[:len(changes)-1], true
		}
		if len(changes) == 0 && beyond {
			break
		}
		if len(changes) == 0 {
			continue
		}
		for len(changes) > 0 {
			part := changes[:min(step, len(changes))]
			changes = changes[len(part):]
			begun := time.Now()
			if err := f.sendChanges(ctx, part); err != nil {
				return err
			}
			if time.Since(begun) < cursorInterval/8 {
				step *= 2
			}
			task.marks[partition] = markOfChange(&part[len(part)-1])
			if err := f.sendCursorOf(&cursor{marks: task.marks}); err != nil {
				return err
			}
		}
	}
	if !known {
		return ErrOvertaken
	}
	return nil
}

// sendChanges sends the notes of consecutive changes of a partition that are in the area.
func (f *follower) sendChanges(ctx context.Context, changes []notes.Change) error {
	type part struct {
		location notes.Location
		span     notes.Span
		count    int
	}
	var parts []part
	index := make(map[notes.Location]int) // of parts
	for i := range changes {
		location, position := changes[i].Location, changes[i].Note.Position
		if !f.area.rectangle.Contains(location) {
			continue
		}
		at, ok := index[location]
		if !ok {
			at = len(parts)
			index[location] = at
			parts = append(parts, part{location: location, span: notes.Span{After: position - 1}})
		}
		parts[at].span.Through = position
		parts[at].count++
	}
	for _, part := range parts {
		for chunk, err := range f.hub.readLog(ctx, part.location, part.span) {
			if err != nil {
				return err
			}
			if err := f.sendNotes(part.location, chunk); err != nil {
				return err
			}
			f.hub.counts.delivered.Add(int64(len(chunk)))
			f.hub.counts.caughtUp.Add(int64(len(chunk)))
			part.count -= len(chunk)
		}
		if part.count > 0 {
			return ErrOvertaken
		}
	}
	return nil
}

// sendCursorOf sends a cursor, unless the last one was sent just now. A chat has none.
func (f *follower) sendCursorOf(at *cursor) error {
	if f.sinceCursor() < cursorInterval {
		return nil
	}
	f.hub.mu.Lock()
	f.cursorAt = time.Since(f.hub.opened)
	f.hub.mu.Unlock()
	return f.sendCursor(f.encodeCursor(at), false)
}

// sinceCursor returns the time since the last cursor was sent.
func (f *follower) sinceCursor() time.Duration {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	return time.Since(f.hub.opened) - f.cursorAt
}
