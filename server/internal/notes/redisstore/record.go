package redisstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
)

// errOtherStore is the error of a store that another one has replaced while this server was running.
var errOtherStore = fmt.Errorf("%w: Redis has another one", notes.ErrUnavailable)

// claim makes sure that the store has a record and this server's number of partitions. Redis may have lost the
// record: then this server creates it again.
func (s *Store) claim(ctx context.Context) error {
	record := fmt.Sprintf(recordFormat, layoutVersion, len(s.partitions))
	found, err := s.client.Do(ctx, s.client.B().Set().Key(recordKey).Value(record).Nx().Get().Build()).ToString()
	switch {
	case rueidis.IsRedisNil(err), err == nil && found == record:
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%w: %s is %q now, and this server was started with %q: restart it", errOtherStore, recordKey, found, record)
	}
}

// join reads the record of the store, or creates it. The first result is the number of partitions, the second a
// transient error for which the record is not created yet.
func (s *Store) join(ctx context.Context, wanted int) (count int, transient, err error) {
	record, err := s.client.Do(ctx, s.client.B().Get().Key(recordKey).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		if err := s.refuseFirstLayout(ctx); err != nil {
			return 0, nil, err
		}
		count = wanted
		if count == 0 {
			count = defaultPartitions
		}
		if s.readOnly {
			return count, nil, nil
		}
		record, err = s.client.Do(ctx, s.client.B().Set().Key(recordKey).
			Value(fmt.Sprintf(recordFormat, layoutVersion, count)).Nx().Get().Build()).ToString()
		if rueidis.IsRedisNil(err) {
			return count, nil, nil
		}
		if isTransient(err) {
			return count, explain(err), nil
		}
	}
	if err != nil {
		return 0, nil, explain(err)
	}
	var layout int
	if _, err := fmt.Sscanf(record, recordFormat, &layout, &count); err != nil || layout != layoutVersion || count < 1 || count > maxPartitions {
		return 0, nil, fmt.Errorf("%w: %s is %q, want layout=%d: another version wrote it", notes.ErrDamaged, recordKey, record, layoutVersion)
	}
	if wanted != 0 && wanted != count {
		return 0, nil, fmt.Errorf("partitions=%d: the store was created with %d partitions, which cannot change", wanted, count)
	}
	return count, nil, nil
}

// refuseFirstLayout returns an error if Redis has notes in the layout before this one.
func (s *Store) refuseFirstLayout(ctx context.Context) error {
	for _, node := range s.client.Nodes() {
		master, err := isMaster(ctx, node)
		if err != nil {
			return explain(err)
		}
		for cursor, first := uint64(0), true; master && (first || cursor != 0); first = false {
			entry, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(firstLayoutPattern).Count(scanCount).Build()).AsScanEntry()
			if err != nil {
				return explain(err)
			}
			if len(entry.Elements) > 0 {
				return fmt.Errorf("the key %s has notes in the layout of an older version: export them with that version (commit %s) and import them with this one into an empty Redis", entry.Elements[0], firstLayoutCommit)
			}
			cursor = entry.Cursor
		}
	}
	return nil
}

func isMaster(ctx context.Context, node rueidis.Client) (bool, error) {
	role, err := node.Do(ctx, node.B().Role().Build()).ToArray()
	if err != nil {
		return false, err
	}
	if len(role) == 0 {
		return false, errors.New("the reply of ROLE is empty")
	}
	name, err := role[0].ToString()
	return name == "master", err
}
