// Package redisstore is the [notes.Store] in Redis or Valkey, on one node or on a cluster. Any number of
// servers can share it; they are stateless.
//
// A note is settled once Redis has it and, with Options.Replicas, once a number of replicas have it.
// Durability depends on the configuration of Redis: by default it syncs to the disk once a second.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/internal/feed"
	"example.com/routeguide/server/internal/notes/internal/zorder"
)

const (
	dialTimeout = 2 * time.Second
	// callTimeout is the deadline of a call. The client retries reads until then.
	callTimeout = 5 * time.Second
	// Limits of a chunk of Range, in notes and bytes. A chunk of one note may exceed chunkBytes.
	chunkNotes = 512
	chunkBytes = 128 << 10
	// forgetNotes is the largest number of notes that one forgetScript reads and removes: a script blocks
	// Redis.
	forgetNotes = 1000
	// firstLocations and maxLocations are the numbers of locations that are read from each partition at once, first and at
	// the most, and boxRanges the number of ranges of a rectangle that are searched for them.
	firstLocations = 8
	maxLocations   = 256
	boxRanges      = 32
	// scanCount is the COUNT of a SCAN, in keys.
	scanCount = 1000
)

// Options configure a [Store]. Only URL is required.
type Options struct {
	// URL is redis://[USER:PASSWORD@]HOST:PORT, with any number of ?addr=HOST:PORT for further nodes, or
	// rediss:// for TLS. Other nodes of a cluster are discovered. ?replicas=N sets Replicas, and ?partitions=N the
	// number of partitions of a store that is created; another number later is an error.
	URL string
	// Replicas is the number of replicas that must acknowledge a note before it is settled or read: the larger one of
	// this and the URL's. If fewer acknowledge it within a second, the ticket gets [notes.ErrUnknown].
	Replicas int
	// ReadOnly disables Append and Forget: the Redis user needs no write permissions.
	ReadOnly bool
	// Health is called with the error when the store can no longer keep notes, or cannot for another reason, and with
	// nil when it can again. Calls are not concurrent. It must not block.
	Health func(err error)
	// OnCommit is called with the round-trip time of each batch of notes; nil is none. It must not block.
	OnCommit func(took time.Duration)
}

// A Store is a [notes.Store] in Redis.
type Store struct {
	client   rueidis.Client
	options  rueidis.ClientOption // of client, and of that of subscriptions
	replicas int
	readOnly bool                // Options.ReadOnly
	onCommit func(time.Duration) // Options.OnCommit; nil is none
	health   func(error)

	partitions []*partition
	writers    []*writer // each has the partitions whose number is its own modulo their count; none if readOnly

	feed        feed.Feed
	subscribing sync.Mutex // guards stopReaders
	stopReaders func()     // ends and joins the readers of changes; nil if there are none

	running sync.WaitGroup // writers and monitor
	closed  atomic.Bool
	stop    context.CancelFunc // ends monitor
	once    sync.Once
}

// Open connects to Redis and runs a readiness check. A transient error, such as a lack of memory, goes to
// Health; any other is returned, with the redacted URL.
func Open(options Options) (*Store, error) {
	parsed, err := parseURL(options.URL)
	if err != nil {
		return nil, err
	}
	client := parsed.options
	client.Dialer.Timeout = dialTimeout
	client.ConnWriteTimeout = callTimeout
	client.DisableCache = true
	client.ShuffleInit = true
	// One pipelined connection per node. With several, each broken connection is noticed only by its next
	// note, which gets ErrUnknown although it was never sent; the probe repairs a single connection.
	client.PipelineMultiplex = -1
	store := &Store{
		options:  client,
		replicas: max(parsed.replicas, options.Replicas),
		readOnly: options.ReadOnly,
		onCommit: options.OnCommit,
		health:   options.Health,
	}
	if store.health == nil {
		store.health = func(error) {}
	}
	if store.client, err = rueidis.NewClient(client); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", parsed.redacted, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	store.stop = stop
	transient, err := store.start(ctx, parsed.partitions)
	if err != nil {
		stop()
		store.client.Close()
		return nil, fmt.Errorf("connect to %s: %w", parsed.redacted, err)
	}
	if !store.readOnly {
		store.writers = newWriters(store)
		for _, writer := range store.writers {
			store.running.Go(writer.run)
		}
		if transient != nil {
			store.health(transient)
		}
		store.running.Go(func() { store.monitor(ctx, transient) })
	}
	return store, nil
}

// start checks that the store can be used, and joins or creates it. A transient error is the first result; any other
// is the second.
func (s *Store) start(ctx context.Context, partitions int) (transient, err error) {
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if transient, err = s.check(startCtx); err != nil {
		return nil, err
	}
	count, notCreated, err := s.join(startCtx, partitions)
	if err != nil {
		return nil, err
	}
	for number := range count {
		s.partitions = append(s.partitions, &partition{keys: keysOf(number), number: number})
	}
	if transient == nil {
		transient = notCreated
	}
	if transient == nil && !s.readOnly {
		if transient = s.probe(startCtx); isMoved(transient) {
			return nil, transient
		}
	}
	if transient == nil && !s.readOnly {
		s.found(startCtx)
	}
	// A partition that cannot be read now is adopted at its first note.
	if err := s.observe(startCtx); err != nil && !errors.Is(err, notes.ErrUnavailable) && !isTimeout(err) {
		return nil, err
	}
	return transient, nil
}

// found gives each partition that is new its lineage. What fails is done by the first write.
func (s *Store) found(ctx context.Context) {
	callCtx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	commands := make([]rueidis.Completed, len(s.partitions))
	for i, partition := range s.partitions {
		commands[i] = s.renewal(partition, "")
	}
	s.client.DoMulti(callCtx, commands...)
}

// Append implements [notes.Store]. It blocks while the queue of the partition's writer holds 1 MiB.
func (s *Store) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	if s.readOnly {
		ticket.Settle(notes.Receipt{}, fmt.Errorf("%w: it was opened to be read", notes.ErrUnavailable))
		return
	}
	z := zorder.Of(location)
	s.writers[partitionOf(z, len(s.partitions))%len(s.writers)].append(ctx, pendingNote{z, note, ticket})
}

func (s *Store) partitionOf(z uint64) *partition {
	return s.partitions[partitionOf(z, len(s.partitions))]
}

// usable returns an error if the store is closed or ctx has ended.
func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return notes.ErrClosed
	}
	return context.Cause(ctx)
}

// Forget implements [notes.Store].
func (s *Store) Forget(ctx context.Context, before int64) (int, error) {
	count, now := 0, notes.Now()
	for location, err := range s.Locations(ctx, notes.World, nil) {
		if err != nil {
			return count, err
		}
		for after := int64(0); after >= 0; {
			var forgotten int
			forgotten, after, err = s.forget(ctx, location, after, before, now)
			if err != nil {
				return count, err
			}
			count += forgotten
		}
	}
	return count, nil
}

// forget runs forgetScript on the log of a location, after a position. It returns the number of notes
// removed, and the position after which to continue, or a negative one at the end.
func (s *Store) forget(ctx context.Context, location notes.Location, after, before, now int64) (count int, next int64, err error) {
	if err := s.usable(ctx); err != nil {
		return 0, 0, err
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	args := []string{strconv.FormatInt(after, 10), strconv.Itoa(forgetNotes)}
	for _, time := range []int64{before, now} {
		time := uint64(max(time, 0))
		args = append(args, strconv.FormatUint(time>>32, 10), strconv.FormatUint(time&(1<<32-1), 10))
	}
	z := zorder.Of(location)
	p := s.partitionOf(z)
	reply, err := s.client.Do(callCtx, s.client.B().Eval().Script(forgetScript).Numkeys(2).Key(p.log(z), p.index).Arg(args...).Build()).AsIntSlice()
	if err != nil {
		return 0, 0, readError(ctx, err)
	}
	if len(reply) != 2 {
		return 0, 0, fmt.Errorf("%w: the reply of forget has %d numbers", notes.ErrDamaged, len(reply))
	}
	return int(reply[0]), reply[1], nil
}

// Close implements [notes.Store].
func (s *Store) Close() error {
	s.once.Do(func() {
		s.closed.Store(true)
		for _, writer := range s.writers {
			writer.queue.Close()
		}
		s.stop()
		s.running.Wait()
		s.endReaders()
		s.client.Close()
	})
	return nil
}
