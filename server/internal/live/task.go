package live

import (
	"context"
	"slices"
	"time"
)

// task is what the owner is to do next.
type task struct {
	kind    taskKind
	events  *events
	sub     *subscription
	at      mark
	marks   []mark // where the area is
	ends    []mark // what the area catches up with
	gaps    int
	cursor  []byte
	current bool
}

type taskKind int

const (
	rest taskKind = iota
	sendQueued
	catchUp
	catchUpArea
	sendCursor
	flushStream
	giveUp
)

// next returns the next task. Its owner is idle once the task is to rest. Flushed says that the stream has no buffered messages.
func (f *follower) next(flushed bool) task {
	h := f.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	f.idle = false
	switch {
	case len(f.queue) > 0:
		first := f.queue[0]
		f.queue[0] = delivery{}
		if f.queue = f.queue[1:]; len(f.queue) == 0 {
			f.queue = nil
		}
		f.queuedBytes -= first.events.bytes()
		f.unmarked = f.area != nil // Notes of a location have one.
		return task{kind: sendQueued, events: first.events}
	case len(f.behind) > 0 && f.behind[0].overtaken:
		return task{kind: giveUp}
	case len(f.behind) > 0:
		sub := f.behind[0]
		if f.behind = f.behind[1:]; len(f.behind) == 0 {
			f.behind = nil
		}
		sub.missed = false
		return task{kind: catchUp, sub: sub, at: sub.at, gaps: h.gaps}
	case f.area != nil && f.area.marks != nil:
		ends := slices.Clone(h.marks)
		for partition, least := range f.area.least {
			if least.number > ends[partition].number {
				ends[partition] = least
			}
		}
		return task{kind: catchUpArea, marks: slices.Clone(f.area.marks), ends: ends, gaps: h.gaps}
	case f.currentDue || f.cursorDue || f.unmarked && time.Since(h.opened)-f.cursorAt >= cursorInterval:
		task := task{kind: sendCursor, cursor: f.encodeCursor(&cursor{marks: f.marks()}), current: f.currentDue}
		f.currentDue, f.cursorDue, f.unmarked, f.cursorAt = false, false, false, time.Since(h.opened)
		return task
	case !flushed:
		return task{kind: flushStream}
	default:
		f.idle = true
		return task{}
	}
}

// work does all tasks, until the owner may rest.
func (f *follower) work(ctx context.Context) error {
	flushed := true
	for {
		var err error
		task := f.next(flushed)
		flushed = false
		switch task.kind {
		case rest:
			return nil
		case sendQueued:
			f.hub.counts.delivered.Add(int64(len(task.events.list)))
			err = f.sendEvents(task.events)
		case catchUp:
			err = f.catchUp(ctx, task)
		case catchUpArea:
			err = f.catchUpArea(ctx, task)
		case sendCursor:
			err = f.sendCursor(task.cursor, task.current)
		case flushStream:
			err = f.flush()
			flushed = true
		case giveUp:
			err = ErrOvertaken
		}
		if err != nil {
			return err
		}
	}
}
