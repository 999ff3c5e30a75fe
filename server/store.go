package main

import (
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/notes/pebblestore"
	"example.com/routeguide/server/internal/notes/redisstore"
)

const storesHelp = `"pebble:DIR" is a folder on this machine, "memory:" forgets them when the server ends, and "redis://HOST:PORT", or "rediss://" for TLS, is Redis or Valkey, one node or a cluster, whose further nodes "?addr=HOST:PORT" may name; "?replicas=N" waits for N replicas to have each note, too, and "?partitions=N" is the number of partitions of a store that is created (16).`

// storeOptions are the options of all stores besides their place. Each store uses those that concern it.
type storeOptions struct {
	maxBytes  int64
	replicas  int
	readOnly  bool
	logger    *slog.Logger
	health    func(error)
	fatal     func(error)
	committed func(time.Duration) // gets the duration of each group commit
}

// socketName is the file name, in the folder of a store, of the socket by which a running server serves exports.
const socketName = "export.sock"

// pebbleDir returns the folder of a store on the disk.
func pebbleDir(where string) (dir string, ok bool) {
	dir, ok = strings.CutPrefix(where, "pebble:")
	return filepath.Clean(dir), ok && dir != ""
}

// openStore opens the store that the flag --store names.
func openStore(where string, options storeOptions) (notes.Store, error) {
	scheme, _, _ := strings.Cut(where, ":")
	dir, isPebble := pebbleDir(where)
	switch {
	case where == "memory:":
		return memorystore.New(), nil
	case isPebble:
		return pebblestore.Open(pebblestore.Options{
			Dir:      dir,
			MaxBytes: options.maxBytes,
			Logger:   options.logger,
			Health:   options.health,
			Fatal:    options.fatal,
			OnCommit: options.committed,
		})
	case scheme == "redis" || scheme == "rediss":
		if _, err := redisstore.RedactURL(where); err != nil {
			return nil, command.Usagef("--store: the URL of Redis: %w", err)
		}
		return redisstore.Open(redisstore.Options{URL: where, Replicas: options.replicas, ReadOnly: options.readOnly, Health: options.health, OnCommit: options.committed})
	default:
		return nil, command.Usagef("--store %q: want pebble:DIR, memory:, redis://HOST:PORT or rediss://HOST:PORT", where)
	}
}

// redactedStore returns where without user and password.
func redactedStore(where string) string {
	if strings.HasPrefix(where, "redis") {
		if shown, err := redisstore.RedactURL(where); err == nil {
			return shown
		}
	}
	return where
}
