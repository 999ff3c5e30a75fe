package redisstore

import (
	"context"
	"errors"
	"fmt"
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
	// probedPartitions is the number of partitions that a health check looks at: so many that every master of a
	// cluster most likely has one.
	probedPartitions = 16
)

// probeElement is a valid element of a log: a probe needs the same permissions and memory as a note.
var probeElement = encode(notes.Note{Encoded: []byte("probe")})

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
		if err == nil {
			// Other servers may have seen that Redis has lost changes. A partition out of reach has no news.
			_ = s.observe(ctx)
		}
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

// probe is the health check: a write and a read by script, with keys on all masters, and the record of the store. It
// returns an error if no master serves both: then no note can be kept and answered.
func (s *Store) probe(ctx context.Context) error {
	callCtx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	count := min(len(s.partitions), probedPartitions)
	commands := make([]rueidis.Completed, 0, 2*count)
	for i := range count {
		keys := s.partitions[i*len(s.partitions)/count].keys
		commands = append(commands, s.probeWrite(keys), s.probeRead(keys))
	}
	results := s.client.DoMulti(callCtx, commands...)
	var first error
	for i := range count {
		err := noReply(results[2*i].Error())
		if err == nil {
			err = noReply(results[2*i+1].Error())
		}
		if err == nil {
			return s.claimed(callCtx)
		}
		if first == nil {
			first = explain(err)
		}
	}
	return first
}

// claimed makes sure that the store has its record, unless that cannot be written now: other masters may take notes.
func (s *Store) claimed(ctx context.Context) error {
	if err := s.claim(ctx); errors.Is(err, errOtherStore) {
		return err
	}
	return nil
}

// noReply returns the error of a script that returns nothing.
func noReply(err error) error {
	if rueidis.IsRedisNil(err) {
		return nil
	}
	return err
}

func (s *Store) probeWrite(keys keys) rueidis.Completed {
	return s.client.B().Eval().Script(probeWriteScript).Numkeys(1).Key(keys.probe).Arg(keys.channel, probeElement).Build()
}

func (s *Store) probeRead(keys keys) rueidis.Completed {
	return s.client.B().EvalRo().Script(probeReadScript).Numkeys(1).Key(keys.probe).Build()
}

// requirement is a Redis command that the store uses outside of scripts, or a script that checks the others.
type requirement struct {
	name    string
	command rueidis.Completed
}

// requirements returns the commands that the store uses. They leave no data.
func (s *Store) requirements() []requirement {
	b := s.client.B
	first := keysOf(0)
	requirements := []requirement{
		{"EVAL_RO", s.probeRead(first)},
		{"GET", b().Get().Key(recordKey).Build()},
		{"ROLE", b().Role().Build()},
		{"SCAN", b().Scan().Cursor(0).Count(1).Build()},
	}
	if !s.readOnly {
		requirements = append(requirements, requirement{"EVAL", s.probeWrite(first)})
	}
	if s.replicas > 0 {
		requirements = append(requirements, requirement{"WAIT", b().Wait().Numreplicas(0).Timeout(0).Build()})
	}
	return requirements
}

// check is the readiness check of Open. It names a command that the user may not run. A transient error, such as a
// lack of memory, is the first result; any other is the second.
func (s *Store) check(ctx context.Context) (transient, err error) {
	for _, requirement := range s.requirements() {
		err := s.client.Do(ctx, requirement.command).Error()
		switch {
		case err == nil, rueidis.IsRedisNil(err), isOnReplica(err):
		case isTransient(err):
			transient = explain(err)
		default:
			return nil, fmt.Errorf("%s: %w", requirement.name, explain(err))
		}
	}
	return transient, nil
}

// isOnReplica returns whether err is that of a WAIT on a replica, which is permitted: in a cluster, any node may get a command without
// keys.
func isOnReplica(err error) bool {
	reply, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(reply.Error(), "WAIT cannot be used with replica")
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
		advice = "permit the command on the keys and the channels routeguide:*"
	case strings.HasPrefix(text, "READONLY"):
		advice = "this is a replica: connect to the master, or promote the replica"
	case strings.HasPrefix(text, "OOM"):
		advice = "raise maxmemory, or forget old notes"
	default:
		return err
	}
	return fmt.Errorf("%w (%s)", err, advice)
}
