package redisstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
)

// knowledge is what this server knows of the history of a partition.
type knowledge struct {
	place

	// replicated is the last change known to be on replicas.
	replicated notes.Sequence
}

// place is the state of a partition in Redis: its lineage, and the ID of its last batch. Both are empty if there is none.
type place struct{ lineage, last string }

// A partition is a partition as this server sees it.
type partition struct {
	keys

	number int

	mu    sync.Mutex // guards state
	state knowledge

	// confirming is held while a reader waits for replicas: the next one may find that they have its notes, too.
	confirming sync.Mutex
	refused    time.Time // when a wait failed last, guarded by confirming
	refusal    error     // of that wait
}

func (p *partition) known() knowledge {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// see takes note of a batch that is in Redis and, if so, on replicas.
func (p *partition) see(seen place, replicated bool) error {
	sequence, err := sequenceOf(seen.last)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.lineage != seen.lineage {
		return nil
	}
	if known, _ := sequenceOf(p.state.last); sequence > known {
		p.state.last = seen.last
	}
	if replicated {
		p.state.replicated = max(p.state.replicated, sequence)
	}
	return nil
}

// newLineage returns a lineage of a partition. It begins with the number of partitions, so that no server writes
// with another one, even if the record of the store was lost.
func (s *Store) newLineage() string {
	return s.lineagePrefix() + rand.Text()
}

func (s *Store) lineagePrefix() string { return strconv.Itoa(len(s.partitions)) + "." }

// adopt takes note of the lineage of a partition. The error is that of a partition of a store with another number
// of them.
func (s *Store) adopt(p *partition, lineage string) error {
	if lineage != "" && !strings.HasPrefix(lineage, s.lineagePrefix()) {
		count, _, _ := strings.Cut(lineage, ".")
		return fmt.Errorf("%w: it has %s partitions, and this server was started with %d: restart it", errOtherStore, count, len(s.partitions))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.lineage != lineage {
		p.state = knowledge{place: place{lineage: lineage}}
	}
	return nil
}

// Lineage implements [notes.Store]: a hash of the lineages of the partitions. That of a partition changes when Redis is
// seen to have lost changes.
func (s *Store) Lineage() string {
	hash := sha256.New()
	for _, p := range s.partitions {
		hash.Write([]byte(p.known().lineage + "\n"))
	}
	return hex.EncodeToString(hash.Sum(nil)[:16])
}

// renew replaces a lineage of a partition by a new one, unless another server has, and adopts it.
func (s *Store) renew(ctx context.Context, p *partition, lineage string) error {
	renewed, err := s.client.Do(ctx, s.renewal(p, lineage)).ToString()
	if err != nil {
		return err
	}
	return s.adopt(p, renewed)
}

func (s *Store) renewal(p *partition, lineage string) rueidis.Completed {
	return s.client.B().Eval().Script(renewScript).Numkeys(1).Key(p.partition).Arg(lineage, s.newLineage()).Build()
}

// places reads the state of every partition, and takes note of it. A partition that has lost changes that this server
// has seen gets a new lineage.
func (s *Store) places(ctx context.Context) ([]place, error) {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	before := make([]knowledge, len(s.partitions))
	commands := make([]rueidis.Completed, len(s.partitions))
	for i, p := range s.partitions {
		before[i] = p.known()
		commands[i] = s.client.B().Hmget().Key(p.partition).Field("lineage", "last").Build()
	}
	places := make([]place, len(s.partitions))
	for i, result := range s.client.DoMulti(callCtx, commands...) {
		fields, err := result.AsStrSlice()
		if err != nil {
			return nil, readError(ctx, err)
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("%w: HMGET returned %d values", notes.ErrDamaged, len(fields))
		}
		places[i] = place{fields[0], fields[1]}
	}
	for i, p := range s.partitions {
		err := s.adopt(p, places[i].lineage)
		if err == nil {
			err = p.see(places[i], false)
		}
		if err == nil && !s.readOnly && before[i].lostBy(places[i]) {
			err = s.renew(callCtx, p, places[i].lineage)
			places[i].lineage = p.known().lineage
		}
		if err != nil {
			return nil, err
		}
	}
	return places, nil
}

// observe is places with the deadline of a health check: a master out of reach must hold up neither the start nor the next
// check.
func (s *Store) observe(ctx context.Context) error {
	callCtx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err := s.places(callCtx)
	return err
}

// lostBy returns whether changes that were known before a partition was read are gone.
func (k knowledge) lostBy(read place) bool {
	known, _ := sequenceOf(k.last) // They were checked when they were seen.
	end, _ := sequenceOf(read.last)
	return k.lineage == read.lineage && (known > end || known == end && k.last != read.last)
}
