package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
)

const (
	// probeEvery is the interval between two health checks, and probeTimeout the deadline of one.
	probeEvery   = time.Second
	probeTimeout = time.Second
	// startTimeout is the deadline of the check at the start.
	startTimeout = 5 * time.Second
	// probeKeys is the number of keys that a health check writes: so many that every master of a cluster most
	// likely has one.
	probeKeys = 16
	// checkKey is the key of the check at the start.
	checkKey = "routeguide:{check}"
)

// probeElement is an element of a log like any other, so that a probe needs what a note needs.
var probeElement = encode(notes.Note{Encoded: []byte("probe")})

func probeKey(number int) string {
	return "routeguide:{probe-" + strconv.Itoa(number) + "}"
}

// watch reports to Health when Redis stops or resumes to take notes, until ctx ends.
func (s *Store) watch(ctx context.Context, healthy bool) {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := s.probe(ctx)
		if ctx.Err() == nil && healthy != (err == nil) {
			healthy = err == nil
			s.health(err)
		}
	}
}

// probe does what serving needs, a write and a read by script, with keys on all masters. It returns an
// error if no master does both: then no note can be kept and answered.
func (s *Store) probe(ctx context.Context) error {
	calling, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	commands := make([]rueidis.Completed, 0, 2*probeKeys)
	for number := range probeKeys {
		commands = append(commands, s.probeWrite(probeKey(number)), s.probeRead(probeKey(number)))
	}
	results := s.client.DoMulti(calling, commands...)
	var first error
	for number := range probeKeys {
		err := results[2*number].Error()
		if err == nil {
			err = results[2*number+1].Error()
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = explain(err)
		}
	}
	return first
}

func (s *Store) probeWrite(key string) rueidis.Completed {
	return s.client.B().Eval().Script(probeScript).Numkeys(1).Key(key).Arg(probeElement).Build()
}

func (s *Store) probeRead(key string) rueidis.Completed {
	return s.client.B().EvalRo().Script(rangeScript).Numkeys(1).Key(key).Arg("0", "1", "0", "1", "1").Build()
}

// need is a command that the store uses.
type need struct {
	name    string
	command rueidis.Completed
}

// needs are the commands that the store uses. Nothing is left of those that write.
func (s *Store) needs() []need {
	b := s.client.B
	needs := []need{
		{"LLEN", b().Llen().Key(checkKey).Build()},
		{"LINDEX", b().Lindex().Key(checkKey).Index(0).Build()},
		{"LRANGE", b().Lrange().Key(checkKey).Start(0).Stop(0).Build()},
		{"EVAL_RO", s.probeRead(probeKey(0))},
		{"ROLE", b().Role().Build()},
		{"SCAN", b().Scan().Cursor(0).Count(1).Build()},
	}
	if !s.readOnly {
		needs = append(needs,
			need{"RPUSH", b().Rpush().Key(checkKey).Element(probeElement).Build()},
			need{"LPUSH", b().Lpush().Key(checkKey).Element(probeElement).Build()},
			need{"LTRIM", b().Ltrim().Key(checkKey).Start(1).Stop(0).Build()},
			need{"EVAL", s.probeWrite(probeKey(0))},
		)
	}
	if s.replicas > 0 {
		needs = append(needs, need{"WAIT", b().Wait().Numreplicas(0).Timeout(0).Build()})
	}
	return needs
}

// check runs each command that the store needs by itself, since an error of a script does not name the command that the
// user may not run. An error that may pass while reads go on, such as a lack of memory, is the first result;
// any other is the second.
func (s *Store) check(ctx context.Context) (passing, err error) {
	calling, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, need := range s.needs() {
		err := s.client.Do(calling, need.command).Error()
		switch {
		case err == nil, rueidis.IsRedisNil(err):
		case isPassing(err):
			passing = explain(err)
		default:
			return nil, fmt.Errorf("%s: %w", need.name, explain(err))
		}
	}
	if passing == nil && !s.readOnly {
		passing = s.probe(ctx)
	}
	if isMoved(passing) {
		return nil, passing
	}
	return passing, nil
}

// isPassing returns whether Redis refuses writes for a reason that may pass while reads go on.
func isPassing(err error) bool {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	for _, prefix := range []string{"OOM", "READONLY", "MISCONF", "NOREPLICAS"} {
		if strings.HasPrefix(reply.Error(), prefix) {
			return true
		}
	}
	return false
}

// isMoved returns whether a node has sent the client to another one, which the client then did not follow: it takes
// the node for a single one, since it could not ask for the nodes of the cluster.
func isMoved(err error) bool {
	reply, ok := errors.AsType[*rueidis.RedisError](err)
	if !ok {
		return false
	}
	_, moved := reply.IsMoved()
	return moved
}

// explain returns an error of Redis with what to do about it, where that can be said.
func explain(err error) error {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		return err
	}
	text := reply.Error()
	var advice string
	switch {
	case isMoved(err):
		advice = "this is a node of a cluster: let the user run CLUSTER SLOTS and CLUSTER SHARDS, by which the other nodes are found"
	case strings.HasPrefix(text, "NOPERM"), strings.Contains(text, "can't run this command"):
		advice = "let the user run it, with the keys routeguide:*"
	case strings.HasPrefix(text, "READONLY"):
		advice = "this is a replica: name the master, or promote it"
	case strings.HasPrefix(text, "OOM"):
		advice = "raise maxmemory, or let old notes be forgotten"
	default:
		return err
	}
	return fmt.Errorf("%w (%s)", err, advice)
}
