package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/queue"
)

const (
	// nodeWriters and clusterWriters are the numbers of writers, if there are so many partitions. On one node, each gathers
	// the notes of many partitions, so that a script has more of them, while the other one waits for its reply. On a
	// cluster, a master out of reach holds up only the writers of its partitions.
	nodeWriters    = 2
	clusterWriters = 16
	// queueBytes is the size of a writer's queue, in bytes, from which on Append blocks.
	queueBytes = 1 << 20
	// inFlightNotes is the limit of the notes of all writers in flight, and groupBytes that of one writer: enough to keep
	// Redis busy, and few enough not to delay reads. A single note may exceed groupBytes. One partition may have all
	// notes of a writer, and unpack in a Lua script fails beyond about 8,000 values, two of each note.
	inFlightNotes = 4096
	groupBytes    = 512 << 10
	// keptChanges is the number of changes of a partition that can be replayed, and of a few more.
	keptChanges = 1 << 16
	// noteOverhead is the memory of a queued note besides its encoded note, in bytes.
	noteOverhead = 128
	// A batch that a node refuses, as because its slot moves or has moved, is sent again for retryTimeout, every
	// redirectInterval, while the client updates its map of slots.
	retryTimeout     = time.Second
	redirectInterval = 50 * time.Millisecond
)

// pendingNote is a note that is not yet written, with its location and ticket.
type pendingNote struct {
	z      uint64
	note   notes.Note
	ticket notes.Ticket
}

func (n *pendingNote) size() int {
	return len(n.note.Encoded) + noteOverhead
}

// A writer writes the notes of a fixed set of partitions, with one batch of each in flight at a time, so that a
// redirection cannot reorder the notes of a location.
type writer struct {
	store      *Store
	queue      *queue.Queue[pendingNote]
	groupNotes int // limit of the notes in flight
}

// newWriters returns the writers of a store that has joined its partitions.
func newWriters(store *Store) []*writer {
	most := nodeWriters
	if store.client.Mode() == rueidis.ClientModeCluster {
		most = clusterWriters
	}
	writers := make([]*writer, min(len(store.partitions), most))
	for i := range writers {
		writers[i] = &writer{store: store, queue: queue.New[pendingNote](queueBytes), groupNotes: inFlightNotes / most}
	}
	return writers
}

func (w *writer) append(ctx context.Context, note pendingNote) {
	if err := w.queue.Put(ctx, queue.Open, note, note.size()); err != nil {
		note.ticket.Settle(notes.Receipt{}, err)
	}
}

func (w *writer) run() {
	var buffer []pendingNote
	for open := true; open; {
		var items []pendingNote
		items, open = w.queue.Take(buffer)
		for rest := items; len(rest) > 0; {
			size := w.groupSize(rest)
			if !w.write(rest[:size]) {
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

// groupSize returns the number of the next notes to be written together.
func (w *writer) groupSize(items []pendingNote) int {
	bytes := 0
	for i := range items[:min(len(items), w.groupNotes)] {
		if bytes += items[i].size(); bytes > groupBytes {
			return max(i, 1)
		}
	}
	return min(len(items), w.groupNotes)
}

// notSent settles notes that are not sent, because the batch before them has timed out: others would wait for as long
// again.
func notSent(items []pendingNote) {
	for _, item := range items {
		item.ticket.Settle(notes.Receipt{}, fmt.Errorf("%w: no reply from Redis for %v", notes.ErrUnavailable, callTimeout))
	}
}

// write writes and settles notes. It returns false if some of them timed out.
func (w *writer) write(items []pendingNote) (answered bool) {
	callCtx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	start := time.Now()
	if w.store.onCommit != nil {
		defer func() { w.store.onCommit(time.Since(start)) }()
	}
	answered = true
	for batches := w.store.split(items); len(batches) > 0; {
		var again []*batch
		redirected := false
		for i, reply := range w.store.send(callCtx, batches) {
			retry, results, err := w.store.receive(callCtx, batches[i], reply)
			if retry && time.Since(start) < retryTimeout {
				again = append(again, batches[i])
				redirected = redirected || isRedirection(err)
				continue
			}
			answered = answered && !isTimeout(err)
			batches[i].settle(results, err)
		}
		if redirected {
			pause(callCtx, redirectInterval)
		}
		batches = again
	}
	return answered
}

// reply is the reply of Redis to a batch.
type reply struct {
	message rueidis.RedisMessage
	err     error
}

// send sends batches, each once. With replicas, each is written on a connection of its own.
func (s *Store) send(callCtx context.Context, batches []*batch) []reply {
	replies := make([]reply, len(batches))
	if s.replicas > 0 {
		var writing sync.WaitGroup
		for i, batch := range batches {
			writing.Go(func() { replies[i].message, replies[i].err = s.doAndWait(callCtx, batch.command) })
		}
		writing.Wait()
		return replies
	}
	commands := make([]rueidis.Completed, len(batches))
	for i, batch := range batches {
		commands[i] = batch.command(s.client)
	}
	for i, result := range s.client.DoMulti(callCtx, commands...) {
		replies[i].message, replies[i].err = result.ToMessage()
	}
	return replies
}

// receive returns the results of the notes of a batch, in the order of its runs, or their error. If the batch did
// nothing, and may be sent again, retry is true.
func (s *Store) receive(callCtx context.Context, batch *batch, reply reply) (retry bool, results []rueidis.RedisMessage, err error) {
	if reply.err == nil {
		results, err = batch.parse(&reply.message)
		return false, results, err
	}
	known, isReply := rueidis.IsRedisErr(reply.err)
	if !isReply {
		return false, nil, writeError(reply.err)
	}
	lineage, isLineage := strings.CutPrefix(known.Error(), lineageCode)
	switch {
	case known.IsNoScript():
		batch.asText = true
	case isRedirection(reply.err):
	case strings.HasPrefix(known.Error(), lostCode):
		err = s.renew(callCtx, batch.partition, batch.known.lineage)
	case isLineage && lineage == "":
		// Redis has lost the partition, and perhaps the store.
		if err = s.claim(callCtx); err == nil {
			err = s.renew(callCtx, batch.partition, "")
		}
	case isLineage:
		err = s.adopt(batch.partition, lineage)
	default:
		return false, nil, writeError(reply.err)
	}
	if err != nil {
		return false, nil, fmt.Errorf("%w: %w", notes.ErrUnavailable, err)
	}
	return true, nil, fmt.Errorf("%w: %w", notes.ErrUnavailable, reply.err)
}

func isRedirection(err error) bool {
	reply, ok := errors.AsType[*rueidis.RedisError](err)
	if !ok {
		return false
	}
	_, moved := reply.IsMoved()
	_, ask := reply.IsAsk()
	return moved || ask || reply.IsTryAgain()
}
