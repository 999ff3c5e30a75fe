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
	// laneCount is how many batches can be on their way at once.
	laneCount = 16
	// laneBytes is how much may wait in a lane before Append waits too.
	laneBytes = 1 << 20
	// laneNotes is how many notes of a lane are on their way at once: enough to keep Redis busy, and
	// not so many that those who read wait for long. Lua takes some thousand arguments.
	laneNotes = 128
	// waitMillis is how long replicas may take to have a note.
	waitMillis = 1000
	// waitAtOnce is how many locations of a lane wait for replicas at once.
	waitAtOnce = 16
	// noteOverhead is what a note takes in memory besides its bytes.
	noteOverhead = 128
	// A write that a node refuses because it has given its slot to another is tried again, for the
	// client to find out where: at most redirections times, and after redirectPause.
	redirections  = 20
	redirectPause = 50 * time.Millisecond
)

// appended is a note on its way to Redis.
type appended struct {
	at     notes.Location
	note   notes.Note
	ticket notes.Ticket
}

// A writer writes the notes of some locations: always the same, and one batch after the other, so that
// no redirection changes the order of the notes of a location.
type writer struct {
	store *Store
	inbox *queue.Queue[appended]
}

func newLane(store *Store) *writer {
	return &writer{store: store, inbox: queue.New[appended](laneBytes)}
}

func (l *writer) append(ctx context.Context, note appended) {
	if err := l.inbox.Put(ctx, queue.Open, note, len(note.note.Encoded)+noteOverhead); err != nil {
		note.ticket.Settle(0, err)
	}
}

func (l *writer) run() {
	var spare []appended
	for open := true; open; {
		var items []appended
		items, open = l.inbox.Take(spare)
		for rest := items; len(rest) > 0; {
			size := min(len(rest), laneNotes)
			if !l.write(split(rest[:size])) {
				notSent(rest[size:])
				break
			}
			rest = rest[size:]
		}
		clear(items) // The notes and their owners may go.
		spare = items[:0]
	}
}

// notSent settles notes that need not be sent, since Redis did not answer those before them.
func notSent(items []appended) {
	for _, item := range items {
		item.ticket.Settle(0, fmt.Errorf("%w: Redis has not answered for %v", notes.ErrUnavailable, callTimeout))
	}
}

// batch is notes of one location, in their order.
type batch struct {
	at      notes.Location
	kept    []notes.Note // without their positions
	notes   []string     // as Redis has them
	tickets []notes.Ticket
}

// split returns a batch for each location.
func split(items []appended) []*batch {
	var batches []*batch
	open := make(map[notes.Location]*batch)
	for _, item := range items {
		of := open[item.at]
		if of == nil {
			of = &batch{at: item.at}
			open[item.at] = of
			batches = append(batches, of)
		}
		of.kept = append(of.kept, item.note)
		of.notes = append(of.notes, encode(item.note))
		of.tickets = append(of.tickets, item.ticket)
	}
	return batches
}

// settle tells the owners what became of their notes: the position of the last one, or an error.
func (s *Store) settle(batch *batch, last int64, err error) {
	first := last - int64(len(batch.tickets)) + 1
	if err == nil {
		s.begun.add(batch.at, notes.Position(first), batch.kept)
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
	return client.B().Eval().Script(appendScript).Numkeys(1).Key(listKey(b.at)).Arg(b.notes...).Build()
}

// write writes and settles batches. It returns false if Redis did not answer one of them in time.
func (l *writer) write(batches []*batch) (answered bool) {
	calling, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if l.store.committed != nil {
		start := time.Now()
		defer func() { l.store.committed(time.Since(start)) }()
	}
	if l.store.replicas > 0 {
		return l.writeAndWait(calling, batches)
	}
	commands := make([]rueidis.Completed, len(batches))
	for i, batch := range batches {
		commands[i] = batch.command(l.store.client)
	}
	answered = true
	for i, result := range l.store.client.DoMulti(calling, commands...) {
		last, err := result.AsInt64()
		if err != nil {
			answered = answered && !isTimeout(err)
			err = writeError(err)
		}
		l.store.settle(batches[i], last, err)
	}
	return answered
}

// writeAndWait writes each batch on a connection of its own, together with the WAIT that covers it: on
// another connection, WAIT would return at once. It returns false if Redis did not answer one of them in time.
func (l *writer) writeAndWait(calling context.Context, batches []*batch) (answered bool) {
	var writing sync.WaitGroup
	var late atomic.Bool
	for some := range slices.Chunk(batches, waitAtOnce) {
		for _, batch := range some {
			writing.Go(func() {
				last, err := l.store.writeAndWait(calling, batch)
				if isTimeout(err) || calling.Err() != nil {
					late.Store(true)
				}
				l.store.settle(batch, last, err)
			})
		}
		writing.Wait()
	}
	return !late.Load()
}

// writeAndWait returns the position of the last note of a batch once enough replicas have it.
func (s *Store) writeAndWait(calling context.Context, batch *batch) (last int64, err error) {
	for range redirections {
		if calling.Err() != nil {
			return 0, fmt.Errorf("%w: it was not sent within %v", notes.ErrUnavailable, callTimeout)
		}
		var written, waited rueidis.RedisResult
		// A dedicated connection follows no redirection by itself, which would send the write to
		// another node than the WAIT.
		err = s.client.Dedicated(func(client rueidis.DedicatedClient) error {
			results := client.DoMulti(calling, batch.command(client),
				client.B().Wait().Numreplicas(int64(s.replicas)).Timeout(waitMillis).Build())
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
		case <-time.After(redirectPause):
		case <-calling.Done():
		}
	}
	return 0, writeError(err)
}

// waited returns an error unless a WAIT has found enough replicas.
func (s *Store) waited(result rueidis.RedisResult) error {
	have, err := result.AsInt64()
	if err != nil {
		return fmt.Errorf("%w: wait for replicas: %w", notes.ErrUnknown, err)
	}
	if have < int64(s.replicas) {
		return fmt.Errorf("%w: %d replicas have it, and not %d", notes.ErrUnknown, have, s.replicas)
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
