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
	// probeInterval is the interval between two health checks, and probeTimeout the deadline of one.
	probeInterval = time.Second
	probeTimeout  = time.Second
	// startTimeout is the deadline of the check at the start.
	startTimeout = 5 * time.Second
	// probeKeys is the number of keys that a health check writes: so many that every master of a cluster most
	// likely has one.
	probeKeys = 16
	// checkKey is the key of the check at the start.
	checkKey = "routeguide:{check}"
)

// probeElement is a valid element of a log: a probe needs the same permissions and memory as a note.
var probeElement = encode(notes.Note{Encoded: []byte("probe")})

func probeKey(number int) string {
	return "routeguide:{probe-" + strconv.Itoa(number) + "}"
}

// monitor reports to Health when Redis stops or resumes accepting notes, or refuses them for another reason than
// before, until ctx ends. The error is that of the check at the start.
func (s *Store) monitor(ctx context.Context, err error) {
	reported := kind(err)
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := s.probe(ctx)
		if ctx.Err() == nil && kind(err) != reported {
			reported = kind(err)
			s.health(err)
		}
	}
}

// kind returns the error code of a reply of Redis, such as READONLY, and "unreachable" for all other errors, whose texts
// differ from one attempt to the next.
func kind(err error) string {
	if err == nil {
		return ""
	}
	if reply, ok := errors.AsType[*rueidis.RedisError](err); ok {
		code, _, _ := strings.Cut(reply.Error(), " ")
		return code
	}
	return "unreachable"
}

// probe is the health check: a write and a read by script, with keys on all masters. It returns an error if
// no master serves both: then no note can be kept and answered.
func (s *Store) probe(ctx context.Context) error {
	callCtx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	commands := make([]rueidis.Completed, 0, 2*probeKeys)
	for number := range probeKeys {
		commands = append(commands, s.probeWrite(probeKey(number)), s.probeRead(probeKey(number)))
	}
	results := s.client.DoMulti(callCtx, commands...)
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

// requirement is a Redis command that the store uses.
type requirement struct {
	name    string
	command rueidis.Completed
}

// requirements returns the commands that the store uses. Those that write leave no data.
func (s *Store) requirements() []requirement {
	b := s.client.B
	requirements := []requirement{
		{"LLEN", b().Llen().Key(checkKey).Build()},
		{"LINDEX", b().Lindex().Key(checkKey).Index(0).Build()},
		{"LRANGE", b().Lrange().Key(checkKey).Start(0).Stop(0).Build()},
		{"EVAL_RO", s.probeRead(probeKey(0))},
		{"ROLE", b().Role().Build()},
		{"SCAN", b().Scan().Cursor(0).Count(1).Build()},
	}
	if !s.readOnly {
		requirements = append(requirements,
			requirement{"RPUSH", b().Rpush().Key(checkKey).Element(probeElement).Build()},
			requirement{"LSET", b().Lset().Key(checkKey).Index(0).Element(probeElement).Build()},
			requirement{"LTRIM", b().Ltrim().Key(checkKey).Start(1).Stop(0).Build()},
			requirement{"EVAL", s.probeWrite(probeKey(0))},
		)
	}
	if s.replicas > 0 {
		requirements = append(requirements, requirement{"WAIT", b().Wait().Numreplicas(0).Timeout(0).Build()})
	}
	return requirements
}

// check is the readiness check of Open. It runs each required command by itself, because the error of a
// script does not name the command that the user may not run. A transient error, such as a lack of memory, is
// the first result; any other is the second.
func (s *Store) check(ctx context.Context) (transient, err error) {
	callCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, requirement := range s.requirements() {
		err := s.client.Do(callCtx, requirement.command).Error()
		switch {
		case err == nil, rueidis.IsRedisNil(err):
		case isTransient(err):
			transient = explain(err)
		default:
			return nil, fmt.Errorf("%s: %w", requirement.name, explain(err))
		}
	}
	if transient == nil && !s.readOnly {
		transient = s.probe(ctx)
	}
	if isMoved(transient) {
		return nil, transient
	}
	return transient, nil
}

// isTransient returns whether Redis refuses writes for a reason that may pass, and still serves reads.
func isTransient(err error) bool {
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

// isMoved returns whether err is a MOVED redirection that the client did not follow. The client then takes a
// node of a cluster for a single node, because it was not permitted to list the nodes.
func isMoved(err error) bool {
	reply, ok := errors.AsType[*rueidis.RedisError](err)
	if !ok {
		return false
	}
	_, moved := reply.IsMoved()
	return moved
}

// explain adds advice to the Redis errors that an operator can fix.
func explain(err error) error {
	reply, ok := rueidis.IsRedisErr(err)
	if !ok {
		if isTimeout(err) {
			return fmt.Errorf("no reply from Redis in time: %w", err)
		}
		return fmt.Errorf("no connection to Redis: %w", err)
	}
	text := reply.Error()
	var advice string
	switch {
	case isMoved(err):
		advice = "this is a node of a cluster: permit CLUSTER SLOTS and CLUSTER SHARDS, which list the other nodes"
	case strings.HasPrefix(text, "NOPERM"), strings.Contains(text, "can't run this command"):
		advice = "permit the command on the keys routeguide:*"
	case strings.HasPrefix(text, "READONLY"):
		advice = "this is a replica: connect to the master, or promote the replica"
	case strings.HasPrefix(text, "OOM"):
		advice = "raise maxmemory, or forget old notes"
	default:
		return err
	}
	return fmt.Errorf("%w (%s)", err, advice)
}
