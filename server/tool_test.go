package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/process"
	"example.com/routeguide/internal/redistest"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/notefile"
)

func runNotes(t *testing.T, args ...string) string {
	t.Helper()
	printed, err := process.Run(t.Context(), must(program()), append([]string{"notes"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return printed
}

// exchange sends notes to a location, half-closes, and returns the texts of all notes in the replies.
func exchange(t *testing.T, url string, location *routeguide.Point, texts ...string) ([]string, error) {
	t.Helper()
	client, err := routechat.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		return nil, err
	}
	defer stream.CloseResponse()
	for _, text := range texts {
		if err := stream.Send(&routeguide.RouteNote{Location: location, Message: text}); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	if err := stream.CloseRequest(); err != nil {
		return nil, err
	}
	var received []string
	for {
		note, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return received, nil
		}
		if err != nil {
			return received, err
		}
		received = append(received, note.GetMessage())
	}
}

// lastReply sends notes to a location and returns the texts of the last reply. The text of the first note at the
// location must be unique: it marks the start of each reply.
func lastReply(t *testing.T, url string, location *routeguide.Point, texts ...string) ([]string, error) {
	t.Helper()
	received, err := exchange(t, url, location, texts...)
	last := 0
	for i, text := range received {
		if text == received[0] {
			last = i // start of a reply
		}
	}
	return received[last:], err
}

// Export and import copy notes unchanged, from a running server's folder to Redis and to another folder.
func TestExportAndImportBetweenStores(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	first, second := "pebble:"+filepath.Join(folder, "first"), "pebble:"+filepath.Join(folder, "second")
	server, url := startProcess(t, "--store", first)
	location := &routeguide.Point{Latitude: 5, Longitude: 7}
	if _, err := lastReply(t, url, location, "a", "b", "c"); err != nil {
		t.Fatal(err)
	}
	one := filepath.Join(folder, "one.ndjson")
	runNotes(t, "export", "--store", first, "--to", one) // from the running server
	if refused, err := process.Run(t.Context(), must(program()), "notes", "import", "--store", first, "--from", one); err == nil || !strings.Contains(refused, "stop the server first") {
		t.Errorf("an import into the store of a running server: %v\n%s", err, refused)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	redis := "redis://" + redistest.Start(t).Addr
	for _, want := range []string{"added 3 notes; 0 were there already", "added 0 notes; 3 were there already"} {
		if printed := runNotes(t, "import", "--store", redis, "--from", one); !strings.Contains(printed, want) {
			t.Errorf("import into Redis: %q, want %q", printed, want)
		}
	}
	two, three := filepath.Join(folder, "two.ndjson"), filepath.Join(folder, "three.ndjson")
	runNotes(t, "export", "--store", redis, "--to", two)
	runNotes(t, "import", "--store", second, "--from", two)
	runNotes(t, "export", "--store", second, "--to", three)
	var files [3]string
	for i, file := range []string{one, two, three} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = string(content)
	}
	if files[0] != files[1] || files[1] != files[2] || strings.Count(files[0], "\n") != 3 {
		t.Errorf("the exports differ:\n%s\n%s\n%s", files[0], files[1], files[2])
	}
	if stats := runNotes(t, "stats", "--store", second); !strings.Contains(stats, "longest log  3 notes, at latitude 5, longitude 7") {
		t.Errorf("stats prints\n%s", stats)
	}
}

func TestImportCountsNotesDatedInFuture(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "notes.ndjson")
	lines := `{"location":{"latitude":1},"message":"a","time":"2131-01-02T03:04:05Z"}
{"location":{"latitude":1},"message":"b","time":"2020-01-02T03:04:05Z"}
`
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"added 2 notes; 0 were there already; 1 was dated in the future and got the present time\n",
		"added 0 notes; 2 were there already\n",
	} {
		if printed := runNotes(t, "import", "--store", "pebble:"+filepath.Join(folder, "notes"), "--from", file); !strings.HasSuffix(printed, want) {
			t.Errorf("import prints %q, want %q", printed, want)
		}
	}
}

func TestNotesAndStoreFlagErrors(t *testing.T) {
	t.Parallel()
	missing := "pebble:" + filepath.Join(t.TempDir(), "missing")
	for _, test := range []struct {
		args  []string
		usage bool
		want  string
	}{
		{[]string{"notes"}, true, "export"},
		{[]string{"notes", "export", "--store", "memory:"}, true, "cannot be read"},
		{[]string{"notes", "export", "--store", "paper:"}, true, "want pebble:DIR"},
		{[]string{"notes", "stats", "--store", "pebble:" + t.TempDir()}, false, "no store in this folder"},
		{[]string{"notes", "stats", "--store", missing}, false, "no such file"},
		{[]string{"notes", "import", "--store", missing, "--from", "/nowhere/file"}, false, "--from"},
		{[]string{"--retention", "-1s"}, true, "--retention"},
		{[]string{"--history", "-1"}, true, "--history"},
		{[]string{"--max-store", "much"}, true, "not a size"},
		{[]string{"--max-store", "1GiB", "--store", "memory:"}, true, "--max-store"},
		{[]string{"--redis-replicas", "1"}, true, "--redis-replicas"},
		{[]string{"--redis-replicas", "1", "--store", "memory:"}, true, "--redis-replicas"},
		{[]string{"--store", "redis://user:secret@h:1?x=1"}, true, `parameter "x"`},
	} {
		err := run(t.Context(), test.args, io.Discard, io.Discard)
		_, usage := errors.AsType[*command.UsageError](err)
		if err == nil || usage != test.usage || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: got %v", test.args, err)
		}
	}
}

func TestRetentionDropsOldNotesWhileServerRuns(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	server, url := startProcess(t, "--store", "memory:", "--retention", "1s")
	location := &routeguide.Point{Latitude: 1}
	if reply, err := lastReply(t, url, location, "old"); err != nil || len(reply) != 1 {
		t.Fatalf("got %v, %v", reply, err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		reply, err := lastReply(t, url, location, "young")
		if err != nil || reply[len(reply)-1] != "young" {
			t.Fatalf("got %v, %v", reply, err)
		}
		if reply[0] == "young" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the old note is still there: %v", reply)
		}
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

// While Redis is down, chats get UNAVAILABLE. When it is back, the server recovers without a restart. The log does not
// contain the password.
func TestRedisOutageRecovers(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always", "--requirepass", "secret")
	server, url := startProcess(t, "--store", "redis://:secret@"+redis.Addr)
	location := &routeguide.Point{Latitude: 1}
	if _, err := lastReply(t, url, location, "a"); err != nil {
		t.Fatal(err)
	}
	redis.Kill(t)
	if _, err := server.Await("no notes can be taken"); err != nil {
		t.Fatal(err)
	}
	if _, err := lastReply(t, url, location, "b"); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("without Redis: got %v, want UNAVAILABLE", err)
	}
	redis.Run(t)
	if _, err := server.Await("notes can be taken again"); err != nil {
		t.Fatal(err)
	}
	if reply, err := lastReply(t, url, location, "c"); err != nil || strings.Join(reply, " ") != "a c" {
		t.Errorf("with Redis back: got %v, %v, want a c", reply, err)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(server.Printed(), "secret") {
		t.Errorf("the log contains the password:\n%s", server.Printed())
	}
}

func TestRedisOverTLS(t *testing.T) {
	t.Parallel()
	redis, certificate := redistest.StartTLS(t)
	server, address, err := process.StartServerWith([]string{"SSL_CERT_FILE=" + certificate}, must(program()), "--store", "rediss://"+redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := lastReply(t, "http://"+address, &routeguide.Point{}, "a", "b"); err != nil || strings.Join(reply, " ") != "a b" {
		t.Errorf("got %v, %v", reply, err)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	// Without the CA certificate, the server must not trust Redis.
	refused, err := process.Start(must(program()), "--listen", "127.0.0.1:0", "--store", "rediss://"+redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := refused.Wait(); code != 1 || err != nil || !strings.Contains(refused.Printed(), "certificate") {
		t.Errorf("ended with %d, %v:\n%s", code, err, refused.Printed())
	}
}

func TestImportCountsNotesAddedBeforeError(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "damaged.ndjson")
	const good = `{"location":{"latitude":1},"message":"a","time":"2026-01-02T03:04:05Z"}` + "\n"
	long := strings.Replace(good, `"a"`, `"`+strings.Repeat("x", 64<<10+1)+`"`, 1)
	for _, test := range []struct {
		text   string
		args   []string
		exit   int
		prints []string
	}{
		{good + strings.TrimSpace(good) + "] " + good, nil, command.ExitError, []string{"added 1 notes; 0 were there already\n", "line 2: byte 72: invalid character ']' after top-level value"}},
		{good + long, nil, command.ExitError, []string{"added 0 notes; 1 were there already\n", "line 2: byte 38: message: is 65537 bytes long: at most 65536 are allowed", "--max-text"}},
		{good + long, []string{"--max-text", "1MiB"}, command.ExitOK, []string{"added 1 notes; 1 were there already\n"}},
		{good + long, []string{"--max-text", "0"}, command.ExitOK, []string{"added 0 notes; 2 were there already\n"}},
	} {
		write(t, file, test.text)
		tool, err := process.Start(must(program()), append([]string{"notes", "import", "--store", "pebble:" + filepath.Join(folder, "store"), "--from", file}, test.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		if exit, err := tool.Wait(); exit != test.exit || err != nil {
			t.Errorf("%v: exit code %d, %v, want %d", test.args, exit, err, test.exit)
		}
		for _, want := range test.prints {
			if !strings.Contains(tool.Printed(), want) {
				t.Errorf("%v: it prints %q, want %q", test.args, tool.Printed(), want)
			}
		}
	}
}

func TestExportToFullDiskFails(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write(t, filepath.Join(folder, "one.ndjson"), `{"location":{},"message":"a","time":"2026-01-02T03:04:05Z"}`)
	store := "pebble:" + filepath.Join(folder, "store")
	runNotes(t, "import", "--store", store, "--from", filepath.Join(folder, "one.ndjson"))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := run(t.Context(), []string{"notes", "export", "--store", store}, full, io.Discard); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want ENOSPC", err)
	}
}

// brokenStore is a store whose Locations fails.
type brokenStore struct{ notes.Store }

func (brokenStore) Locations(context.Context, notes.Rectangle, *notes.Location) iter.Seq2[notes.Location, error] {
	return func(yield func(notes.Location, error) bool) {
		yield(notes.Location{}, errors.New("read failed"))
	}
}

func TestFailedExportKeepsExistingFile(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	dir, to := filepath.Join(folder, "store"), filepath.Join(folder, "backup")
	store, err := openStore("pebble:"+dir, storeOptions{logger: slog.New(slog.DiscardHandler), health: func(error) {}, fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	socket, err := notefile.NewSocket(t.Context(), filepath.Join(dir, socketName), brokenStore{store})
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, "the backup of yesterday")
	if printed, err := process.Run(t.Context(), must(program()), "notes", "export", "--store", "pebble:"+dir, "--to", to); err == nil {
		t.Errorf("an incomplete export succeeds: %s", printed)
	}
	files, err := filepath.Glob(to + "*")
	if err != nil || len(files) != 1 {
		t.Errorf("files after the export: %v, %v, want only the backup", files, err)
	}
	if text, err := os.ReadFile(to); err != nil || string(text) != "the backup of yesterday" {
		t.Errorf("the backup is now %q, %v", text, err)
	}
	if err := errors.Join(socket.Close(), store.Close()); err != nil {
		t.Error(err)
	}
}

func TestExportFromRunningServerWithLongFolderPath(t *testing.T) {
	t.Parallel()
	store := "pebble:" + filepath.Join(t.TempDir(), strings.Repeat("n", 150))
	server, url := startProcess(t, "--store", store)
	if _, err := lastReply(t, url, &routeguide.Point{Latitude: 5}, "a"); err != nil {
		t.Fatal(err)
	}
	if exported := runNotes(t, "export", "--store", store); !strings.Contains(exported, `"message":"a"`) {
		t.Errorf("export prints %q", exported)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}
