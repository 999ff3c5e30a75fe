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
	"hash/maphash"
	"iter"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
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
	// scanCount is the COUNT of a SCAN, in keys.
	scanCount = 1000
)

// Options configure a [Store]. Only URL is required.
type Options struct {
	// URL is redis://[USER:PASSWORD@]HOST:PORT, with any number of ?addr=HOST:PORT for further nodes, or
	// rediss:// for TLS. Other nodes of a cluster are discovered. ?replicas=N sets Replicas.
	URL string
	// Replicas is the number of replicas that must acknowledge a note before it is settled: the larger one of
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
	replicas int
	readOnly bool                // Options.ReadOnly
	onCommit func(time.Duration) // Options.OnCommit; nil is none
	health   func(error)
	seed     maphash.Seed
	heads    headCache
	writers  [writerCount]*writer
	running  sync.WaitGroup // writers and monitor
	closed   atomic.Bool
	stop     context.CancelFunc // ends monitor
	once     sync.Once
}

// Open connects to Redis and runs a readiness check. A transient error, such as a lack of memory, goes to
// Health; any other is returned, with the redacted URL.
func Open(options Options) (*Store, error) {
	client, replicas, redacted, err := parseURL(options.URL)
	if err != nil {
		return nil, err
	}
	client.Dialer.Timeout = dialTimeout
	client.ConnWriteTimeout = callTimeout
	client.DisableCache = true
	client.ShuffleInit = true
	// One pipelined connection per node. With several, each broken connection is noticed only by its next
	// note, which gets ErrUnknown although it was never sent; the probe repairs a single connection.
	client.PipelineMultiplex = -1
	store := &Store{
		replicas: max(replicas, options.Replicas),
		readOnly: options.ReadOnly,
		onCommit: options.OnCommit,
		health:   options.Health,
		seed:     maphash.MakeSeed(),
		heads:    newHeadCache(),
	}
	if store.health == nil {
		store.health = func(error) {}
	}
	if store.client, err = rueidis.NewClient(client); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", redacted, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	store.stop = stop
	transient, err := store.check(ctx)
	if err != nil {
		stop()
		store.client.Close()
		return nil, fmt.Errorf("connect to %s: %w", redacted, err)
	}
	for i := range store.writers {
		store.writers[i] = newWriter(store)
		store.running.Go(store.writers[i].run)
	}
	if !store.readOnly {
		if transient != nil {
			store.health(transient)
		}
		store.running.Go(func() { store.monitor(ctx, transient) })
	}
	return store, nil
}

// Append implements [notes.Store]. It blocks while the queue of the location's writer holds 1 MiB.
func (s *Store) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	s.writers[maphash.Comparable(s.seed, location)%writerCount].append(ctx, pendingNote{location, note, ticket})
}

// Range implements [notes.Store].
func (s *Store) Range(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		if chunk, ok := s.heads.read(location, span); ok && s.usable(ctx) == nil {
			if len(chunk) > 0 {
				yield(chunk, nil)
			}
			return
		}
		for more := true; more && span.After < span.Through; {
			var chunk []notes.Note
			var err error
			chunk, more, err = s.read(ctx, location, span)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(chunk) == 0 || !yield(chunk, nil) {
				return
			}
			span.After = chunk[len(chunk)-1].Position
			span.Newest = 0 // resolved by the first chunk: After excludes older notes
		}
	}
}

// read returns the first chunk of a span, and whether more follow.
func (s *Store) read(ctx context.Context, location notes.Location, span notes.Span) (chunk []notes.Note, more bool, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, false, err
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := s.client.Do(callCtx, s.client.B().EvalRo().Script(rangeScript).Numkeys(1).Key(listKey(location)).
		Arg(strconv.FormatUint(uint64(span.After), 10), strconv.FormatUint(uint64(span.Through), 10), strconv.Itoa(span.Newest),
			strconv.Itoa(chunkNotes), strconv.Itoa(chunkBytes)).Build()).ToArray()
	if err != nil {
		return nil, false, readError(ctx, err)
	}
	return parseRange(reply)
}

// usable returns an error if the store is closed or ctx has ended.
func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return notes.ErrClosed
	}
	return context.Cause(ctx)
}

// Locations implements [notes.Store]. It keeps the set of locations returned, because SCAN may return a key
// twice.
func (s *Store) Locations(ctx context.Context) iter.Seq2[notes.Location, error] {
	return func(yield func(notes.Location, error) bool) {
		if err := s.usable(ctx); err != nil {
			yield(notes.Location{}, err)
			return
		}
		seen := make(map[notes.Location]struct{})
		for _, node := range s.client.Nodes() {
			master, err := isMaster(ctx, node)
			if err != nil {
				yield(notes.Location{}, readError(ctx, err))
				return
			}
			if master && !scan(ctx, node, seen, yield) {
				return
			}
		}
	}
}

func isMaster(ctx context.Context, node rueidis.Client) (bool, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	role, err := node.Do(callCtx, node.B().Role().Build()).ToArray()
	if err != nil {
		return false, err
	}
	if len(role) == 0 {
		return false, errors.New("the reply of ROLE is empty")
	}
	name, err := role[0].ToString()
	return name == "master", err
}

// scan yields the locations of a node. It returns false when the iteration must end.
func scan(ctx context.Context, node rueidis.Client, seen map[notes.Location]struct{}, yield func(notes.Location, error) bool) bool {
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		entry, err := scanStep(ctx, node, cursor)
		if err != nil {
			yield(notes.Location{}, readError(ctx, err))
			return false
		}
		locations, err := withNotes(ctx, node, entry.Elements, seen)
		if err != nil {
			yield(notes.Location{}, readError(ctx, err))
			return false
		}
		for _, location := range locations {
			if !yield(location, nil) {
				return false
			}
		}
		cursor = entry.Cursor
	}
	return true
}

// withNotes returns the locations of keys that have notes and are not in seen. A list without notes, all
// forgotten, still has its base.
func withNotes(ctx context.Context, node rueidis.Client, keys []string, seen map[notes.Location]struct{}) ([]notes.Location, error) {
	var locations []notes.Location
	var commands []rueidis.Completed
	for _, key := range keys {
		location, ok := parseKey(key)
		if _, again := seen[location]; !ok || again {
			continue
		}
		seen[location] = struct{}{}
		locations = append(locations, location)
		commands = append(commands, node.B().Llen().Key(key).Build())
	}
	if len(commands) == 0 {
		return nil, nil
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	having := locations[:0]
	for i, result := range node.DoMulti(callCtx, commands...) {
		length, err := result.AsInt64()
		if err != nil {
			return nil, err
		}
		if length > 1 {
			having = append(having, locations[i])
		}
	}
	return having, nil
}

func scanStep(ctx context.Context, node rueidis.Client, cursor uint64) (rueidis.ScanEntry, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return node.Do(callCtx, node.B().Scan().Cursor(cursor).Match(keyPattern).Count(scanCount).Build()).AsScanEntry()
}

// Forget implements [notes.Store].
func (s *Store) Forget(ctx context.Context, before int64) (int, error) {
	count, now := 0, notes.Now()
	for location, err := range s.Locations(ctx) {
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
	reply, err := s.client.Do(callCtx, s.client.B().Eval().Script(forgetScript).Numkeys(1).Key(listKey(location)).Arg(args...).Build()).AsIntSlice()
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
		s.client.Close()
	})
	return nil
}
