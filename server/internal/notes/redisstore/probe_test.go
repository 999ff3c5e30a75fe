package redisstore_test

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/routeguide/internal/redistest"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/redisstore"
)

// opened returns a store in a node, and the calls of its Health.
func opened(t *testing.T, node *redistest.Node, options redisstore.Options) (*redisstore.Store, <-chan error) {
	t.Helper()
	health := make(chan error, 100)
	options.URL = "redis://" + node.Addr
	options.Health = func(err error) { health <- err }
	return open(t, options), health
}

// awaitHealth waits until health says what is wanted. On a busy machine, a check may time out in between.
func awaitHealth(t *testing.T, health <-chan error, want string) {
	t.Helper()
	var last error
	for deadline := time.After(time.Minute); ; {
		select {
		case last = <-health:
			if want == "" && last == nil || want != "" && last != nil && regexp.MustCompile(want).MatchString(last.Error()) {
				return
			}
		case <-deadline:
			t.Fatalf("health says %v, want %q", last, want)
		}
	}
}

// Health reports every reason for which Redis refuses notes, with the cause, and the recovery.
func TestHealthReportsCauseAndRecovery(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		refuse, permit []string
		health         string
		append         error
	}{
		"replica":       {[]string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}, "READONLY", notes.ErrUnavailable},
		"memory":        {[]string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}, "OOM", notes.ErrNoRoom},
		"script":        {[]string{"ACL", "SETUSER", "default", "-eval"}, []string{"ACL", "SETUSER", "default", "+eval"}, "'eval'", notes.ErrUnavailable},
		"read script":   {[]string{"ACL", "SETUSER", "default", "-eval_ro"}, []string{"ACL", "SETUSER", "default", "+eval_ro"}, "'eval_ro'", nil},
		"write command": {[]string{"ACL", "SETUSER", "default", "-rpush"}, []string{"ACL", "SETUSER", "default", "+rpush"}, "'rpush'", notes.ErrUnavailable},
		"keys":          {[]string{"ACL", "SETUSER", "default", "resetkeys", "~other:*"}, []string{"ACL", "SETUSER", "default", "~*"}, "NOPERM", notes.ErrUnavailable},
		"replicas":      {[]string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}, "NOREPLICAS", notes.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node := redistest.Start(t)
			store, health := opened(t, node, redisstore.Options{})
			node.CLI(t, test.refuse...)
			awaitHealth(t, health, test.health)
			if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("refused")); !errors.Is(err, test.append) {
				t.Errorf("Append: got %v, want %v", err, test.append)
			}
			node.CLI(t, test.permit...)
			awaitHealth(t, health, "")
			if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("kept")); err != nil {
				t.Errorf("Append afterwards: %v", err)
			}
		})
	}
}

// The reason for which notes are refused may change before it passes.
func TestHealthReportsChangedCause(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	_, health := opened(t, node, redisstore.Options{})
	node.CLI(t, "REPLICAOF", "127.0.0.1", "1")
	awaitHealth(t, health, "READONLY")
	node.CLI(t, "ACL", "SETUSER", "default", "-eval")
	awaitHealth(t, health, "NOPERM")
	node.CLI(t, "REPLICAOF", "NO", "ONE")
	node.CLI(t, "ACL", "SETUSER", "default", "+eval")
	awaitHealth(t, health, "")
}

// Health reports a cluster only once no master accepts notes.
func TestHealthWhileOneMasterAcceptsNotes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	nodes := redistest.StartCluster(t)
	health := make(chan error, 100)
	open(t, redisstore.Options{URL: "redis://" + nodes[0].Addr, Health: func(err error) { health <- err }})
	for _, master := range nodes[:2] {
		master.CLI(t, "CONFIG", "SET", "maxmemory", "1")
	}
	// The first report must come after the third master refuses notes, too.
	nodes[2].CLI(t, "ACL", "SETUSER", "default", "-eval")
	if err := <-health; err == nil {
		t.Error("health is good while no master accepts notes")
	}
	nodes[2].CLI(t, "ACL", "SETUSER", "default", "+eval")
	awaitHealth(t, health, "")
}

// A missing permission is not transient: Open fails, and names the command or the keys.
func TestOpenErrorNamesForbiddenCommand(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	for command, options := range map[string]redisstore.Options{
		"eval": {}, "eval_ro": {}, "evalsha": {}, "evalsha_ro": {}, "get": {}, "set": {}, "hmget": {}, "hset": {}, "lindex": {}, "llen": {}, "lrange": {}, "lset": {}, "ltrim": {}, "role": {},
		"rpush": {}, "scan": {}, "spublish": {}, "ssubscribe": {}, "xadd": {}, "xrange": {}, "xrevrange": {}, "zadd": {}, "zrangebylex": {}, "zrem": {},
		"wait": {Replicas: 1},
	} {
		node.CLI(t, "ACL", "SETUSER", command, "on", ">secret", "+@all", "~routeguide:*", "&routeguide:*", "-"+command)
		options.URL = "redis://" + command + ":secret@" + node.Addr
		if store, err := redisstore.Open(options); err == nil {
			_ = store.Close()
			t.Errorf("without %s: no error", command)
		} else if !strings.Contains(err.Error(), "'"+command+"'") || strings.Contains(err.Error(), "secret") {
			t.Errorf("without %s: got %v", command, err)
		}
	}
	node.CLI(t, "ACL", "SETUSER", "silent", "on", ">secret", "+@all", "~routeguide:*")
	if store, err := redisstore.Open(redisstore.Options{URL: "redis://silent:secret@" + node.Addr}); err == nil {
		_ = store.Close()
		t.Error("without its channels: no error")
	} else if !strings.Contains(err.Error(), "channels routeguide:*") {
		t.Errorf("without its channels: got %v", err)
	}
	node.CLI(t, "ACL", "SETUSER", "elsewhere", "on", ">secret", "+@all", "~other:*", "&routeguide:*")
	if store, err := redisstore.Open(redisstore.Options{URL: "redis://elsewhere:secret@" + node.Addr}); err == nil {
		_ = store.Close()
		t.Error("without its keys: no error")
	} else if !strings.Contains(err.Error(), "routeguide:*") {
		t.Errorf("without its keys: got %v", err)
	}
}

// The permissions of docs/durability.md suffice.
func TestOpenWithDocumentedPermissions(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	readPermissions := []string{"+eval_ro", "+evalsha_ro", "+get", "+hmget", "+lindex", "+llen", "+lrange", "+role", "+scan", "+xrange", "+xrevrange", "+zrangebylex"}
	permissions := append([]string{"&routeguide:*", "+eval", "+evalsha", "+hset", "+lset", "+ltrim", "+rpush", "+set", "+spublish", "+ssubscribe", "+xadd", "+zadd", "+zrem",
		"+wait", "+cluster|slots", "+cluster|shards"}, readPermissions...)
	node.CLI(t, append([]string{"ACL", "SETUSER", "routeguide", "on", ">secret", "~routeguide:*"}, permissions...)...)
	store := open(t, redisstore.Options{URL: "redis://routeguide:secret@" + node.Addr})
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("a")); err != nil {
		t.Error(err)
	}
	heard := newListener()
	defer store.Subscribe(heard.announce)()
	keep(t, store, notes.Location{}, "b")
	heard.hears(t, "b")
	if _, err := store.Forget(t.Context(), notes.Now()); err != nil {
		t.Error(err)
	}
	node.CLI(t, append([]string{"ACL", "SETUSER", "reader", "on", ">secret", "~routeguide:*"}, readPermissions...)...)
	reader := open(t, redisstore.Options{URL: "redis://reader:secret@" + node.Addr, ReadOnly: true})
	texts(t, reader, notes.Location{})
}

// A transient error does not fail Open.
func TestOpenWithTransientError(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t, "--maxmemory", "1")
	_, health := opened(t, node, redisstore.Options{})
	awaitHealth(t, health, "OOM")
	node.CLI(t, "CONFIG", "SET", "maxmemory", "0")
	awaitHealth(t, health, "")
}

// Managed Redis services often rename or forbid the CLUSTER command.
func TestStoreOnNodeWithoutClusterCommand(t *testing.T) {
	t.Parallel()
	renamed := redistest.Start(t, "--rename-command", "CLUSTER", "")
	denied := redistest.Start(t)
	denied.CLI(t, "ACL", "SETUSER", "default", "-cluster")
	for name, node := range map[string]*redistest.Node{"renamed": renamed, "denied": denied} {
		store, health := opened(t, node, redisstore.Options{})
		if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("a")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := texts(t, store, notes.Location{}); len(got) != 1 {
			t.Errorf("%s: got %v", name, got)
		}
		node.Kill(t)
		awaitHealth(t, health, "EOF|refused|reset")
	}
}

// A node of a cluster must not be taken for a single node if the user may not run CLUSTER.
func TestOpenErrorOnClusterNodeWithoutClusterCommand(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	nodes := redistest.StartCluster(t)
	nodes[0].CLI(t, "ACL", "SETUSER", "default", "-cluster")
	if store, err := redisstore.Open(redisstore.Options{URL: "redis://" + nodes[0].Addr}); err == nil {
		_ = store.Close()
		t.Error("no error")
	} else if !strings.Contains(err.Error(), "CLUSTER SLOTS") {
		t.Errorf("got %v", err)
	}
}

// A timeout of Redis is ErrUnavailable or ErrUnknown, not the caller's deadline. A caller that cancels gets
// its own error.
func TestErrorsOfHangingRedis(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	node := redistest.Start(t)
	store, _ := opened(t, node, redisstore.Options{})
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("a")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(node.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	rangeError := func(ctx context.Context) (last error) {
		for _, err := range store.Range(ctx, notes.Location{}, notes.Everything) {
			last = err
		}
		return last
	}
	if err := rangeError(t.Context()); !errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("Range: got %v, want notes.ErrUnavailable", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := rangeError(cancelled); !errors.Is(err, context.Canceled) || errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("Range with a cancelled context: got %v, want context.Canceled alone", err)
	}
	// One location has one writer with one batch in flight. Batches queued behind the one that times out are
	// not sent.
	const count = 6000
	fates := make(fates, count)
	for number := range uint64(count) {
		store.Append(t.Context(), notes.Location{}, draft("b"), notes.Ticket{Owner: fates, Number: number})
	}
	unknown := 0
	for range count {
		switch err := <-fates; {
		case errors.Is(err, notes.ErrUnknown):
			unknown++
		case !errors.Is(err, notes.ErrUnavailable):
			t.Fatalf("Append: got %v", err)
		}
	}
	if unknown == 0 || unknown > 2048 {
		t.Errorf("%d of %d notes are of unknown fate, want those of one batch", unknown, count)
	}
}

type fates chan error

func (f fates) Settle(_ uint64, _ notes.Receipt, err error) { f <- err }

// An error of WAIT does not tell whether the replicas have the note.
func TestAppendErrUnknownOnWaitError(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	startReplica(t, master)
	store, _ := opened(t, master, redisstore.Options{Replicas: 1})
	master.CLI(t, "ACL", "SETUSER", "default", "-wait")
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("a")); !errors.Is(err, notes.ErrUnknown) {
		t.Errorf("got %v, want notes.ErrUnknown", err)
	}
}

// A permission that is taken away while the store is in use loses nothing, and health names it.
func TestPermissionLostWhileServing(t *testing.T) {
	t.Parallel()
	for command, written := range map[string]bool{ // whether notes need it
		"eval": false, "evalsha": true, "hmget": true, "hset": true, "lindex": true, "rpush": true, "get": false, "set": true, "zadd": true, "xadd": true, "xrange": false,
		"spublish": false, "ssubscribe": false, "llen": false, "lrange": false, "lset": false, "ltrim": false, "zrem": false, "xrevrange": false, "zrangebylex": false,
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			node := redistest.Start(t)
			store, health := opened(t, node, redisstore.Options{})
			old, young, empty := notes.Location{Latitude: 1}, notes.Location{Latitude: 2}, notes.Location{Latitude: 3}
			for _, location := range []notes.Location{old, young} {
				for _, note := range []notes.Note{{Time: 1, Encoded: []byte("old")}, draft("young")} {
					if _, err := notes.Append(t.Context(), store, location, note); err != nil {
						t.Fatal(err)
					}
				}
			}
			node.CLI(t, "ACL", "SETUSER", "default", "-"+command)
			awaitHealth(t, health, "'"+command+"'")
			_, _ = store.Forget(t.Context(), 2) // Some of it may be done, and some refused.
			for _, location := range []notes.Location{young, empty} {
				if _, err := notes.Append(t.Context(), store, location, draft("refused")); err == nil && written {
					t.Errorf("a note was kept without %s", command)
				} else if err != nil && !errors.Is(err, notes.ErrUnavailable) {
					t.Errorf("got %v, want notes.ErrUnavailable", err)
				}
			}
			node.CLI(t, "ACL", "SETUSER", "default", "+"+command)
			awaitHealth(t, health, "")
			if _, err := store.Forget(t.Context(), 2); err != nil {
				t.Errorf("Forget afterwards: %v", err)
			}
			for _, location := range []notes.Location{old, young, empty} {
				receipt, err := notes.Append(t.Context(), store, location, draft("last"))
				if err != nil {
					t.Fatalf("Append at %v afterwards: %v", location, err)
				}
				got := texts(t, store, location)
				if len(got) == 0 || got[len(got)-1] != "last" || location != empty && (got[0] != "young" || receipt.Position < 3) {
					t.Errorf("the log at %v is %v, and its last position %d", location, got, receipt.Position)
				}
				if written && slices.Contains(got, "refused") {
					t.Errorf("the log at %v has a note that was refused: %v", location, got)
				}
			}
			consistent(t, store)
		})
	}
}
