package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
)

// waitTimeoutMillis is the timeout of WAIT, in milliseconds.
const waitTimeoutMillis = 1000

// confirm returns once replicas have a batch that was read, and all before it. It looks whether the batch is still
// there, and then waits on the same connection: a WAIT covers what its connection has seen.
func (s *Store) confirm(ctx context.Context, p *partition, read place) error {
	sequence, err := sequenceOf(read.last)
	if err != nil || s.replicas == 0 {
		return err
	}
	began := time.Now()
	p.confirming.Lock()
	defer p.confirming.Unlock()
	if known := p.known(); known.lineage == read.lineage && known.replicated >= sequence {
		return nil
	}
	if p.refused.After(began) {
		return p.refusal
	}
	if err := s.awaitReplicas(ctx, p, read); err != nil {
		err = readError(ctx, err)
		if ctx.Err() == nil {
			p.refused, p.refusal = time.Now(), err
		}
		return err
	}
	return nil
}

func (s *Store) awaitReplicas(ctx context.Context, p *partition, read place) error {
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	confirmation := func(client rueidis.CoreClient) rueidis.Completed {
		return client.B().EvalRo().Script(confirmScript).Numkeys(2).Key(p.partition, p.changes).Arg(read.last).Build()
	}
	last, err := s.doAndWait(callCtx, confirmation)
	for isRedirection(err) && pause(callCtx, redirectInterval) {
		last, err = s.doAndWait(callCtx, confirmation)
	}
	if err != nil {
		return err
	}
	text, err := last.ToString()
	if err != nil {
		return err
	}
	if text == "" {
		return fmt.Errorf("%w: Redis has lost the changes up to %s", notes.ErrUnavailable, read.last)
	}
	return p.see(place{read.lineage, text}, true)
}

// errTooFewReplicas is the error of a WAIT that too few replicas have acknowledged in time.
var errTooFewReplicas = errors.New("too few replicas acknowledged in time")

// doAndWait runs a command, and a WAIT on the same connection: on another one, WAIT would return at once. The
// connection does not follow redirections, which would send both to different nodes.
func (s *Store) doAndWait(callCtx context.Context, build func(rueidis.CoreClient) rueidis.Completed) (rueidis.RedisMessage, error) {
	var results []rueidis.RedisResult
	err := s.client.Dedicated(func(client rueidis.DedicatedClient) error {
		results = client.DoMulti(callCtx, build(client), client.B().Wait().Numreplicas(int64(s.replicas)).Timeout(waitTimeoutMillis).Build())
		return nil
	})
	if err != nil {
		return rueidis.RedisMessage{}, err
	}
	reply, err := results[0].ToMessage()
	if err != nil {
		return reply, err
	}
	acknowledged, err := results[1].AsInt64()
	if err != nil {
		return rueidis.RedisMessage{}, fmt.Errorf("%w: WAIT: %w", errTooFewReplicas, err)
	}
	if acknowledged < int64(s.replicas) {
		return rueidis.RedisMessage{}, fmt.Errorf("%w: %d of %d", errTooFewReplicas, acknowledged, s.replicas)
	}
	return reply, nil
}
