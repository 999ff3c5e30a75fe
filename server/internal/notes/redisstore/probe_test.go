package redisstore_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/routeguide/internal/redistest"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/redisstore"
)

// opened returns a store in a node, and what its Health is told.
func opened(t *testing.T, node *redistest.Node, options redisstore.Options) (*redisstore.Store, <-chan error) {
	t.Helper()
	health := make(chan error, 100)
	options.URL = "redis://" + node.Addr
	options.Health = func(err error) { health <- err }
	return open(t, options), health
}

func awaitHealth(t *testing.T, health <-chan error, want string) {
	t.Helper()
	select {
	case err := <-health:
		if want == "" && err != nil || want != "" && (err == nil || !regexp.MustCompile(want).MatchString(err.Error())) {
			t.Errorf("health says %v, want %q", err, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("health does not say %q", want)
	}
}

// Whatever keeps Redis from taking notes, health says so, with the cause, and that it has passed.
func TestHealthProbesWhatNotesNeed(t *testing.T) {
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
		"write command": {[]string{"ACL", "SETUSER", "default", "-rpush"}, []string{"ACL", "SETUSER", "default", "+rpush"}, "can't run this command", notes.ErrUnknown},
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

// A master of a cluster that takes no notes leaves those of the others.
func TestHealthIsGoodWhileAMasterTakesNotes(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t)
	health := make(chan error, 100)
	open(t, redisstore.Options{URL: "redis://" + nodes[0].Addr, Health: func(err error) { health <- err }})
	for _, master := range nodes[:2] {
		master.CLI(t, "CONFIG", "SET", "maxmemory", "1")
	}
	// The third one takes notes until it does not, and only that is told.
	nodes[2].CLI(t, "ACL", "SETUSER", "default", "-eval")
	if err := <-health; err == nil {
		t.Error("health is good while no master takes notes")
	}
	nodes[2].CLI(t, "ACL", "SETUSER", "default", "+eval")
	awaitHealth(t, health, "")
}

// What will not pass by itself is refused at the start, and named.
func TestOpenRefusesAnACLAndNamesTheCommand(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	for command, options := range map[string]redisstore.Options{
		"eval": {}, "eval_ro": {}, "rpush": {}, "lpush": {}, "ltrim": {}, "lindex": {}, "llen": {}, "lrange": {}, "role": {}, "scan": {},
		"wait": {Replicas: 1},
	} {
		node.CLI(t, "ACL", "SETUSER", command, "on", ">secret", "+@all", "~routeguide:*", "-"+command)
		options.URL = "redis://" + command + ":secret@" + node.Addr
		if store, err := redisstore.Open(options); err == nil {
			_ = store.Close()
			t.Errorf("without %s: no error", command)
		} else if !strings.Contains(err.Error(), "'"+command+"'") || strings.Contains(err.Error(), "secret") {
			t.Errorf("without %s: got %v", command, err)
		}
	}
	node.CLI(t, "ACL", "SETUSER", "elsewhere", "on", ">secret", "+@all", "~other:*")
	if store, err := redisstore.Open(redisstore.Options{URL: "redis://elsewhere:secret@" + node.Addr}); err == nil {
		_ = store.Close()
		t.Error("without its keys: no error")
	} else if !strings.Contains(err.Error(), "routeguide:*") {
		t.Errorf("without its keys: got %v", err)
	}
}

// The rights that the documentation names are enough.
func TestOpenNeedsNoMoreThanItSays(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	node.CLI(t, "ACL", "SETUSER", "routeguide", "on", ">secret", "~routeguide:*",
		"+eval", "+eval_ro", "+rpush", "+lpush", "+ltrim", "+lindex", "+llen", "+lrange", "+role", "+scan", "+wait", "+ping", "+cluster|slots", "+cluster|shards")
	store := open(t, redisstore.Options{URL: "redis://routeguide:secret@" + node.Addr})
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("a")); err != nil {
		t.Error(err)
	}
	if _, err := store.Forget(t.Context(), notes.Now()); err != nil {
		t.Error(err)
	}
	node.CLI(t, "ACL", "SETUSER", "reader", "on", ">secret", "~routeguide:*", "+eval_ro", "+lindex", "+llen", "+lrange", "+role", "+scan")
	reader := open(t, redisstore.Options{URL: "redis://reader:secret@" + node.Addr, ReadOnly: true})
	texts(t, reader, notes.Location{})
}

// What may pass by itself does not keep a server from its start.
func TestOpenWaitsForWhatMayPass(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t, "--maxmemory", "1")
	_, health := opened(t, node, redisstore.Options{})
	awaitHealth(t, health, "OOM")
	node.CLI(t, "CONFIG", "SET", "maxmemory", "0")
	awaitHealth(t, health, "")
}

// Managed Redis often has no CLUSTER command, under that name or for this user.
func TestOneNodeWithoutClusterCommands(t *testing.T) {
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

// A node of a cluster is no single node, though the user may not ask.
func TestOpenRefusesANodeOfAClusterThatItCannotAsk(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t)
	nodes[0].CLI(t, "ACL", "SETUSER", "default", "-cluster")
	if store, err := redisstore.Open(redisstore.Options{URL: "redis://" + nodes[0].Addr}); err == nil {
		_ = store.Close()
		t.Error("no error")
	} else if !strings.Contains(err.Error(), "CLUSTER SLOTS") {
		t.Errorf("got %v", err)
	}
}

// The deadline of the store is not that of who asks, and the end of who asks is no fault of the store.
func TestErrorsOfARedisThatHangs(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	store, _ := opened(t, node, redisstore.Options{})
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("a")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(node.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	rangeError := func(ctx context.Context) (last error) {
		// Notes that this store has written are remembered.
		for _, err := range store.Range(ctx, notes.Location{Latitude: 1}, notes.Everything) {
			last = err
		}
		return last
	}
	if err := rangeError(t.Context()); !errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("Range: got %v, want notes.ErrUnavailable", err)
	}
	gone, leave := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, leave)
	if err := rangeError(gone); !errors.Is(err, context.Canceled) || errors.Is(err, notes.ErrUnavailable) {
		t.Errorf("Range whose caller has gone: got %v, want context.Canceled alone", err)
	}
	// All of one location go the same way, a batch at a time. Whatever waits behind the batch that gets no answer is not sent.
	const count = 2000
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
	if unknown == 0 || unknown > 500 {
		t.Errorf("%d of %d notes are of unknown fate, want those of a few batches", unknown, count)
	}
}

type fates chan error

func (f fates) Settle(_ uint64, _ notes.Position, err error) { f <- err }

// If nobody can say that the replicas have a note, its fate is unknown.
func TestAnErrorOfWAITLeavesTheFateUnknown(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	startReplica(t, master)
	store, _ := opened(t, master, redisstore.Options{Replicas: 1})
	master.CLI(t, "ACL", "SETUSER", "default", "-wait")
	if _, err := notes.Append(t.Context(), store, notes.Location{}, draft("a")); !errors.Is(err, notes.ErrUnknown) {
		t.Errorf("got %v, want notes.ErrUnknown", err)
	}
}

// Redis may lose all its notes, and begin anew with those of other servers: what this one remembers of the
// old ones is not what its next reply brings.
func TestFirstNotesAreForgottenWithRedis(t *testing.T) {
	t.Parallel()
	node := redistest.Start(t)
	store, _ := opened(t, node, redisstore.Options{})
	other, _ := opened(t, node, redisstore.Options{})
	const places = 200
	settled := make(fates, 2*places)
	for i := range int32(places) {
		for _, text := range []string{"a", "b"} { // Most come in one batch, which is remembered.
			store.Append(t.Context(), notes.Location{Latitude: i}, draft(text), notes.Ticket{Owner: settled})
		}
	}
	for range 2 * places {
		if err := <-settled; err != nil {
			t.Fatal(err)
		}
	}
	node.CLI(t, "FLUSHALL")
	for i := range int32(places) {
		at := notes.Location{Latitude: i}
		if _, err := notes.Append(t.Context(), other, at, draft("x")); err != nil {
			t.Fatal(err)
		}
		position, err := notes.Append(t.Context(), store, at, draft("c"))
		if err != nil {
			t.Fatal(err)
		}
		for chunk, err := range store.Range(t.Context(), at, notes.Span{Through: position}) {
			if err != nil || len(chunk) != 2 || string(chunk[0].Encoded) != "x" || string(chunk[1].Encoded) != "c" {
				t.Fatalf("the reply at %v is %v, %v, want x and c", at, chunk, err)
			}
		}
	}
}
