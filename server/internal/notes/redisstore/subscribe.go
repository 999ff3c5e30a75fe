package redisstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
)

// pollInterval is the interval at which the changes of a partition are read if no message says that there are any:
// messages get lost.
const pollInterval = 2 * time.Second

// Subscribe implements [notes.Store]. While there are subscribers, a reader for each partition follows its stream of
// changes. Sharded pub/sub wakes it up.
func (s *Store) Subscribe(announce func(notes.Announcement)) (unsubscribe func()) {
	s.subscribing.Lock()
	defer s.subscribing.Unlock()
	if s.stopReaders == nil && !s.closed.Load() {
		s.startReaders()
	}
	end := s.feed.Subscribe(announce)
	return func() {
		end()
		if !s.feed.Active() {
			s.endReaders()
		}
	}
}

// startReaders starts the readers at the ends of their partitions. The caller holds s.subscribing.
func (s *Store) startReaders() {
	ctx, cancel := context.WithCancel(context.Background())
	places, err := s.places(ctx)
	readers := make([]*reader, len(s.partitions))
	var running sync.WaitGroup
	for i, partition := range s.partitions {
		readers[i] = &reader{store: s, partition: partition, wake: make(chan struct{}, 1), lost: err != nil}
		if err == nil {
			readers[i].place = places[i]
		}
		running.Go(func() { readers[i].run(ctx) })
	}
	running.Go(func() { s.listen(ctx, readers) })
	s.stopReaders = func() {
		cancel()
		running.Wait()
	}
}

// endReaders ends the readers, unless there are subscribers and the store is open.
func (s *Store) endReaders() {
	s.subscribing.Lock()
	defer s.subscribing.Unlock()
	if s.stopReaders != nil && (s.closed.Load() || !s.feed.Active()) {
		s.stopReaders()
		s.stopReaders = nil
	}
}

// listen wakes readers up when messages come. The subscriptions have a client of their own: Redis limits the memory
// for replies to a connection with subscriptions, and closes it beyond.
func (s *Store) listen(ctx context.Context, readers []*reader) {
	var client rueidis.Client
	for client == nil {
		var err error
		if client, err = rueidis.NewClient(s.options); err != nil && !pause(ctx, pollInterval) {
			return
		}
	}
	var receiving sync.WaitGroup
	for _, reader := range readers {
		receiving.Go(func() { reader.receive(ctx, client) })
	}
	<-ctx.Done()
	client.Close()
	receiving.Wait()
}

// pause waits. It returns false once ctx has ended.
func pause(ctx context.Context, interval time.Duration) bool {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A reader announces the changes of a partition.
type reader struct {
	store     *Store
	partition *partition
	wake      chan struct{} // has an element if there may be changes
	// place is the lineage and the batch that was announced last.
	place place
	// lost says that the reader goes on from the end.
	lost bool
}

func (r *reader) awaken() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// receive wakes the reader up at each message, and at each subscription, before which messages may have been lost.
func (r *reader) receive(ctx context.Context, client rueidis.Client) {
	hooked := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { r.awaken() })
	for interval := redirectInterval; pause(ctx, interval); {
		err := client.Receive(hooked, client.B().Ssubscribe().Channel(r.partition.channel).Build(), func(rueidis.PubSubMessage) { r.awaken() })
		interval = redirectInterval // The slot has moved.
		if err != nil {
			interval = pollInterval
		}
	}
}

func (r *reader) run(ctx context.Context) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		for more := true; more; {
			more = r.read(ctx)
		}
		select {
		case <-r.wake:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// read announces the next changes. It returns whether there may be more.
func (r *reader) read(ctx context.Context) (more bool) {
	if r.lost {
		places, err := r.store.places(ctx)
		return err == nil && r.resume(places[r.partition.number])
	}
	from := r.place.last
	if from == "" {
		from = "-"
	}
	replay, err := r.store.replay(ctx, r.partition, from, r.partition.logs)
	switch {
	case errors.Is(err, notes.ErrDamaged), isRedirection(err):
		// A log is damaged, or not there, after all attempts. Those who read it get its notes or the error.
		r.lost = true
		return true
	case err != nil:
		return false // The next message or poll tries again.
	case replay.lineage != r.place.lineage:
		return r.resume(replay.place)
	case replay.last == r.place.last:
		return false
	}
	changes, last := r.following(replay.batches)
	if len(changes) == 0 {
		return r.rewind(ctx, replay.place)
	}
	if r.store.confirm(ctx, r.partition, place{r.place.lineage, last}) != nil {
		return false
	}
	r.place.last = last
	r.store.feed.Announce(notes.Announcement{Partition: r.partition.number, Changes: changes})
	return last != replay.last
}

// following returns the changes after the last one, and the ID of their last batch. There are none if the last one is
// gone, or those that followed it.
func (r *reader) following(batches []replayed) (changes []notes.Change, last string) {
	if r.place.last != "" {
		if len(batches) == 0 || batches[0].id != r.place.last {
			return nil, ""
		}
		batches = batches[1:]
	}
	end, _ := sequenceOf(r.place.last) // It was checked when it was read.
	for _, batch := range batches {
		if batch.changes[0].Sequence != end+1 {
			return nil, ""
		}
		changes, last = append(changes, batch.changes...), batch.id
		end = changes[len(changes)-1].Sequence
	}
	return changes, last
}

// rewind goes on after changes that are gone: those that are too old to be kept, or those that Redis has lost. Then their
// numbers, and the positions of their notes, are assigned again, and the lineage changes.
func (r *reader) rewind(ctx context.Context, now place) (more bool) {
	known, _ := sequenceOf(r.place.last)
	end, err := sequenceOf(now.last)
	if err == nil && end > known+keptChanges {
		return r.resume(now)
	}
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if !r.store.readOnly && r.store.renew(callCtx, r.partition, now.lineage) != nil {
		return false
	}
	r.lost = true
	return true
}

// resume announces that changes were missed, and goes on from the end.
func (r *reader) resume(end place) (more bool) {
	if r.store.adopt(r.partition, end.lineage) != nil {
		return false
	}
	r.place, r.lost = end, false
	r.store.feed.Announce(notes.Announcement{Partition: r.partition.number, Missed: true})
	return true
}
