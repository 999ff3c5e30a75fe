// Package redisstore keeps notes in Redis or Valkey, on one node or on a cluster, so that any number
// of servers can share them. The servers hold nothing themselves.
//
// A note is settled once Redis has it, and, if so asked, once a number of replicas have it. How
// durable that is depends on how Redis is set up: by default it syncs to the disk once a second.
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
	// callTimeout is how long Redis may take to answer. A read is tried again meanwhile.
	callTimeout = 5 * time.Second
	// chunkNotes and chunkBytes bound a chunk of a range, but for its last note.
	chunkNotes = 512
	chunkBytes = 128 << 10
	// forgetAtOnce is how many notes of a log one script looks at, and forgets, at most: Redis does nothing
	// else while a script runs.
	forgetAtOnce = 1000
	// scanCount is how many keys Redis looks at in one step of a scan.
	scanCount = 1000
)

// Options are what a [Store] needs to know. Only URL is required.
type Options struct {
	// URL is redis://[USER:PASSWORD@]HOST:PORT, with any number of ?addr=HOST:PORT for further
	// nodes, or rediss:// for TLS. The nodes of a cluster that it does not name are found. ?replicas=N is Replicas.
	URL string
	// Replicas is the number of replicas that must have a note before it is settled, unless the URL has more. If fewer
	// say so within a second, the note's ticket gets [notes.ErrUnknown].
	Replicas int
	// ReadOnly says that no note will be appended or forgotten: the user needs no right to write.
	ReadOnly bool
	// Health is called, not concurrently, when no note can be kept any more, with the reason, and with nil
	// when notes can be kept again. It must not block.
	Health func(err error)
	// OnCommit is told, unless it is nil, how long Redis took to answer each batch of notes. It must not
	// block.
	OnCommit func(took time.Duration)
}

// A Store is a [notes.Store] in Redis.
type Store struct {
	client   rueidis.Client
	replicas int
	readOnly bool // Options.ReadOnly
	// committed is Options.Committed.
	committed func(time.Duration)
	health    func(error)
	seed      maphash.Seed
	begun     headCache
	lanes     [laneCount]*writer
	working   sync.WaitGroup // lanes and the probe
	closed    atomic.Bool
	stop      context.CancelFunc // of the probe
	once      sync.Once
}

// Open connects to Redis, and checks that it can do what the store needs. A lack of memory and the like is told to Health, since
// that may pass; all else is an error, which has the URL without user and password.
func Open(options Options) (*Store, error) {
	client, replicas, shown, err := parseURL(options.URL)
	if err != nil {
		return nil, err
	}
	client.Dialer.Timeout = dialTimeout
	client.ConnWriteTimeout = callTimeout
	client.DisableCache = true
	client.ShuffleInit = true
	// One connection to each node for all that can be pipelined. Of several, each would stay broken
	// until it is used once more, and that note's fate could not be told although it was never sent;
	// the probe mends the one.
	client.PipelineMultiplex = -1
	store := &Store{replicas: max(replicas, options.Replicas), readOnly: options.ReadOnly, committed: options.OnCommit, health: options.Health, seed: maphash.MakeSeed(), begun: newBegun()}
	if store.health == nil {
		store.health = func(error) {}
	}
	if store.client, err = rueidis.NewClient(client); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", shown, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	store.stop = stop
	passing, err := store.check(ctx)
	if err != nil {
		stop()
		store.client.Close()
		return nil, fmt.Errorf("connect to %s: %w", shown, err)
	}
	for i := range store.lanes {
		store.lanes[i] = newLane(store)
		store.working.Go(store.lanes[i].run)
	}
	if !store.readOnly {
		if passing != nil {
			store.health(passing)
		}
		store.working.Go(func() { store.watch(ctx, passing == nil) })
	}
	return store, nil
}

// Append implements [notes.Store]. It waits while several megabytes are on their way to Redis.
func (s *Store) Append(ctx context.Context, at notes.Location, note notes.Note, ticket notes.Ticket) {
	s.lanes[maphash.Comparable(s.seed, at)%laneCount].append(ctx, appended{at, note, ticket})
}

// Range implements [notes.Store].
func (s *Store) Range(ctx context.Context, at notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		if chunk, ok := s.begun.read(at, span); ok && s.usable(ctx) == nil {
			if len(chunk) > 0 {
				yield(chunk, nil)
			}
			return
		}
		for more := true; more && span.After < span.Through; {
			var chunk []notes.Note
			var err error
			chunk, more, err = s.read(ctx, at, span)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(chunk) == 0 || !yield(chunk, nil) {
				return
			}
			span.After = chunk[len(chunk)-1].Position
			span.Newest = 0 // After has what it leaves out.
		}
	}
}

// read returns the start of a span, and whether there is more of it.
func (s *Store) read(ctx context.Context, at notes.Location, span notes.Span) (chunk []notes.Note, more bool, err error) {
	if err := s.usable(ctx); err != nil {
		return nil, false, err
	}
	calling, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := s.client.Do(calling, s.client.B().EvalRo().Script(rangeScript).Numkeys(1).Key(listKey(at)).
		Arg(strconv.FormatUint(uint64(span.After), 10), strconv.FormatUint(uint64(span.Through), 10), strconv.Itoa(span.Newest),
			strconv.Itoa(chunkNotes), strconv.Itoa(chunkBytes)).Build()).ToArray()
	if err != nil {
		return nil, false, readError(ctx, err)
	}
	return parseRange(reply)
}

// usable returns an error if nothing should be asked of Redis.
func (s *Store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return notes.ErrClosed
	}
	return context.Cause(ctx)
}

// Locations implements [notes.Store]. It remembers which locations it has returned: Redis may list
// a key twice.
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
	calling, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	role, err := node.Do(calling, node.B().Role().Build()).ToArray()
	if err != nil {
		return false, err
	}
	if len(role) == 0 {
		return false, errors.New("a node has no role")
	}
	name, err := role[0].ToString()
	return name == "master", err
}

// scan yields the locations of a node. It returns false if there is nothing more to yield.
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
		for _, at := range locations {
			if !yield(at, nil) {
				return false
			}
		}
		cursor = entry.Cursor
	}
	return true
}

// withNotes returns the locations of keys that have notes and were not seen: a list of which all was
// forgotten has its base left.
func withNotes(ctx context.Context, node rueidis.Client, keys []string, seen map[notes.Location]struct{}) ([]notes.Location, error) {
	var locations []notes.Location
	var commands []rueidis.Completed
	for _, key := range keys {
		at, ok := parseKey(key)
		if _, again := seen[at]; !ok || again {
			continue
		}
		seen[at] = struct{}{}
		locations = append(locations, at)
		commands = append(commands, node.B().Llen().Key(key).Build())
	}
	if len(commands) == 0 {
		return nil, nil
	}
	calling, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	having := locations[:0]
	for i, result := range node.DoMulti(calling, commands...) {
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
	calling, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return node.Do(calling, node.B().Scan().Cursor(cursor).Match(keyPattern).Count(scanCount).Build()).AsScanEntry()
}

// Forget implements [notes.Store].
func (s *Store) Forget(ctx context.Context, before int64) (int, error) {
	count, now := 0, notes.Now()
	for at, err := range s.Locations(ctx) {
		if err != nil {
			return count, err
		}
		for after := int64(0); after >= 0; {
			var forgotten int
			forgotten, after, err = s.forget(ctx, at, after, before, now)
			if err != nil {
				return count, err
			}
			count += forgotten
		}
	}
	return count, nil
}

// forget runs forgetScript on the log of a location, after a position. It returns how many notes that has
// removed, and the position after which to go on: a negative one if there is no more to do.
func (s *Store) forget(ctx context.Context, at notes.Location, after, before, now int64) (count int, next int64, err error) {
	if err := s.usable(ctx); err != nil {
		return 0, 0, err
	}
	calling, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	args := []string{strconv.FormatInt(after, 10), strconv.Itoa(forgetAtOnce)}
	for _, time := range []int64{before, now} {
		time := uint64(max(time, 0))
		args = append(args, strconv.FormatUint(time>>32, 10), strconv.FormatUint(time&(1<<32-1), 10))
	}
	reply, err := s.client.Do(calling, s.client.B().Eval().Script(forgetScript).Numkeys(1).Key(listKey(at)).Arg(args...).Build()).AsIntSlice()
	if err != nil {
		return 0, 0, readError(ctx, err)
	}
	if len(reply) != 2 {
		return 0, 0, fmt.Errorf("%w: forgetting returned %d numbers", notes.ErrDamaged, len(reply))
	}
	return int(reply[0]), reply[1], nil
}

// Close implements [notes.Store].
func (s *Store) Close() error {
	s.once.Do(func() {
		s.closed.Store(true)
		for _, lane := range s.lanes {
			lane.inbox.Close()
		}
		s.stop()
		s.working.Wait()
		s.client.Close()
	})
	return nil
}
