package redisstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/queue"
)

const (
	// writerCount is the number of writers.
	writerCount = 16
	// queueBytes is the size of a writer's queue, in bytes, from which on Append blocks.
	queueBytes = 1 << 20
	// groupNotes is the number of notes of a writer in flight: enough to keep Redis busy, and few enough not
	// to delay reads. A Lua script accepts a few thousand arguments.
	groupNotes = 128
	// waitTimeoutMillis is the timeout of WAIT, in milliseconds.
	waitTimeoutMillis = 1000
	// concurrentWaits is the number of locations of a writer that wait for replicas concurrently.
	concurrentWaits = 16
	// noteOverhead is the memory of a queued note besides its encoded note, in bytes.
	noteOverhead = 128
	// A write that a node refuses because its slot has moved is retried up to maxRedirects times, every
	// redirectInterval, while the client updates its map of slots.
	maxRedirects     = 20
	redirectInterval = 50 * time.Millisecond
)

// pendingNote is a note that is not yet written, with its ticket.
type pendingNote struct {
	location notes.Location
	note     notes.Note
	ticket   notes.Ticket
}

// A writer writes the notes of a fixed set of locations, with one batch in flight at a time, so that a
// redirection cannot reorder the notes of a location.
type writer struct {
	store *Store
	queue *queue.Queue[pendingNote]
}

func newWriter(store *Store) *writer {
	return &writer{store: store, queue: queue.New[pendingNote](queueBytes)}
}

func (w *writer) append(ctx context.Context, note pendingNote) {
	if err := w.queue.Put(ctx, queue.Open, note, len(note.note.Encoded)+noteOverhead); err != nil {
		note.ticket.Settle(0, err)
	}
}

func (w *writer) run() {
	var buffer []pendingNote
	for open := true; open; {
		var items []pendingNote
		items, open = w.queue.Take(buffer)
		for rest := items; len(rest) > 0; {
			size := min(len(rest), groupNotes)
			if !w.write(split(rest[:size])) {
				notSent(rest[size:])
				notSent(w.queue.TryTake())
				break
			}
			rest = rest[size:]
		}
		clear(items) // Release the notes and their owners to the garbage collector.
		buffer = items[:0]
	}
}

// notSent settles notes that are not sent, because the batch before them has timed out: others would wait for as long
// again.
func notSent(items []pendingNote) {
	for _, item := range items {
		item.ticket.Settle(0, fmt.Errorf("%w: no reply from Redis for %v", notes.ErrUnavailable, callTimeout))
	}
}

// batch is a list of notes of one location, in order.
type batch struct {
	location notes.Location
	kept     []notes.Note // without positions
	notes    []string     // elements of the list in Redis
	tickets  []notes.Ticket
}

// split groups notes into a batch per location.
func split(items []pendingNote) []*batch {
	var batches []*batch
	open := make(map[notes.Location]*batch)
	for _, item := range items {
		target := open[item.location]
		if target == nil {
			target = &batch{location: item.location}
			open[item.location] = target
			batches = append(batches, target)
		}
		target.kept = append(target.kept, item.note)
		target.notes = append(target.notes, encode(item.note))
		target.tickets = append(target.tickets, item.ticket)
	}
	return batches
}

// settle settles the tickets of a batch with positions up to that of the last note, or with an error.
func (s *Store) settle(batch *batch, last int64, err error) {
	first := last - int64(len(batch.tickets)) + 1
	if err == nil {
		s.heads.add(batch.location, notes.Position(first), batch.kept)
	}
	for i, ticket := range batch.tickets {
		if err != nil {
			ticket.Settle(0, err)
			continue
		}
		ticket.Settle(notes.Position(first+int64(i)), nil)
	}
}

func (b *batch) command(client rueidis.CoreClient) rueidis.Completed {
	return client.B().Eval().Script(appendScript).Numkeys(1).Key(listKey(b.location)).Arg(b.notes...).Build()
}

// write writes and settles batches. It returns false if one of them timed out.
func (w *writer) write(batches []*batch) (answered bool) {
	callCtx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if w.store.onCommit != nil {
		start := time.Now()
		defer func() { w.store.onCommit(time.Since(start)) }()
	}
	if w.store.replicas > 0 {
		return w.writeAndWait(callCtx, batches)
	}
	commands := make([]rueidis.Completed, len(batches))
	for i, batch := range batches {
		commands[i] = batch.command(w.store.client)
	}
	answered = true
	for i, result := range w.store.client.DoMulti(callCtx, commands...) {
		last, err := result.AsInt64()
		if err != nil {
			answered = answered && !isTimeout(err)
			err = writeError(err)
		}
		w.store.settle(batches[i], last, err)
	}
	return answered
}

// writeAndWait writes each batch on a connection of its own, together with its WAIT: on another connection,
// WAIT would return at once. It returns false if one of them timed out.
func (w *writer) writeAndWait(callCtx context.Context, batches []*batch) (answered bool) {
	var writing sync.WaitGroup
	var timedOut atomic.Bool
	for some := range slices.Chunk(batches, concurrentWaits) {
		for _, batch := range some {
			writing.Go(func() {
				last, err := w.store.writeAndWait(callCtx, batch)
				if isTimeout(err) || callCtx.Err() != nil {
					timedOut.Store(true)
				}
				w.store.settle(batch, last, err)
			})
		}
		writing.Wait()
	}
	return !timedOut.Load()
}

// writeAndWait writes a batch. It returns the position of its last note once enough replicas acknowledge it.
func (s *Store) writeAndWait(callCtx context.Context, batch *batch) (last int64, err error) {
	for range maxRedirects {
		if callCtx.Err() != nil {
			return 0, fmt.Errorf("%w: the write was not sent within %v", notes.ErrUnavailable, callTimeout)
		}
		var written, waited rueidis.RedisResult
		// A dedicated connection does not follow redirections: those would send the write and the WAIT to
		// different nodes.
		err = s.client.Dedicated(func(client rueidis.DedicatedClient) error {
			results := client.DoMulti(callCtx, batch.command(client),
				client.B().Wait().Numreplicas(int64(s.replicas)).Timeout(waitTimeoutMillis).Build())
			written, waited = results[0], results[1]
			return nil
		})
		if err != nil {
			return 0, writeError(err)
		}
		if last, err = written.AsInt64(); err == nil {
			return last, s.waited(waited)
		}
		if !isRedirection(err) {
			break
		}
		select {
		case <-time.After(redirectInterval):
		case <-callCtx.Done():
		}
	}
	return 0, writeError(err)
}

// waited returns an error if too few replicas have acknowledged a WAIT.
func (s *Store) waited(result rueidis.RedisResult) error {
	acknowledged, err := result.AsInt64()
	if err != nil {
		return fmt.Errorf("%w: wait for replicas: %w", notes.ErrUnknown, err)
	}
	if acknowledged < int64(s.replicas) {
		return fmt.Errorf("%w: acknowledged by %d of %d replicas", notes.ErrUnknown, acknowledged, s.replicas)
	}
	return nil
}

func isRedirection(err error) bool {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	_, moved := reply.IsMoved()
	_, ask := reply.IsAsk()
	return moved || ask || reply.IsTryAgain()
}
