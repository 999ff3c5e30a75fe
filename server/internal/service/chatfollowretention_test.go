package service_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// largeLog leaves notes of 1 KB at longitude 1, with numbers from first on.
func largeLog(t *testing.T, store notes.Store, first, count int) (want []string) {
	t.Helper()
	appended := make(appended, count)
	for i := range count {
		text := fmt.Sprintf("%d %s", first+i, strings.Repeat("x", 1000))
		encoded, err := proto.Marshal(note(1, text))
		if err != nil {
			t.Fatal(err)
		}
		store.Append(t.Context(), notes.Location{Longitude: 1}, notes.Note{Time: notes.Now(), Encoded: encoded}, notes.Ticket{Owner: appended})
		want = append(want, text)
	}
	for range count {
		if err := <-appended; err != nil {
			t.Fatal(err)
		}
	}
	return want
}

// appended is the owner of notes that waits for them.
type appended chan error

func (a appended) Settle(_ uint64, _ notes.Receipt, err error) { a <- err }

func openPebble(t *testing.T) notes.Store {
	t.Helper()
	store, err := pebblestore.Open(pebblestore.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// If retention overtakes a chat that is behind, it is sent the notes up to the first one that it misses, and ABORTED.
func TestRetentionAbortsRouteChatThatIsBehind(t *testing.T) {
	t.Parallel()
	const count = 3000
	for name, open := range map[string]func(*testing.T) notes.Store{
		"memory": func(*testing.T) notes.Store { return memorystore.New() },
		"pebble": openPebble,
	} {
		for _, retention := range []time.Duration{0, time.Nanosecond} {
			t.Run(fmt.Sprint(name, " ", retention), func(t *testing.T) {
				t.Parallel()
				store := open(t)
				options := bounded()
				options.Chats.Store, options.Retention = store, retention
				url, running := startWith(t, options)
				chat := chatFollowing(t, dialNarrow(t, url))
				chat.send(t, note(1, "first"))
				chat.untilNotes(t, 1)
				want := []string{"first"}
				for running.Live().Overflows == 0 {
					want = append(want, largeLog(t, store, len(want), 100)...)
				}
				want = append(want, largeLog(t, store, len(want), count)...)
				forgetAllButLast(t, store)
				checkAborted(t, chat, want)
			})
		}
	}
}

// Also while the first reply is sent.
func TestRetentionAbortsFirstReplyOfRouteChatThatFollows(t *testing.T) {
	t.Parallel()
	const count = 10_000
	store := openPebble(t)
	options := bounded()
	options.Chats.Store, options.Retention = store, time.Hour
	url, running := startWith(t, options)
	want := append(largeLog(t, store, 0, count), "mine")
	chat := chatFollowing(t, dialNarrow(t, url))
	chat.send(t, note(1, "mine"))
	chat.untilNotes(t, 1)
	for running.Counts().Received == 0 {
		time.Sleep(time.Millisecond)
	}
	forgetAllButLast(t, store)
	checkAborted(t, chat, want)
}

// forgetAllButLast forgets all notes but the last one at longitude 1.
func forgetAllButLast(t *testing.T, store notes.Store) {
	t.Helper()
	var last int64
	for chunk, err := range store.Range(t.Context(), notes.Location{Longitude: 1}, notes.Span{Through: notes.Everything.Through, Newest: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		last = chunk[0].Time
	}
	if count, err := store.Forget(t.Context(), last); err != nil || count == 0 {
		t.Fatalf("%d notes were forgotten, %v", count, err)
	}
}

// checkAborted fails the test unless the chat ends with ABORTED after a part of what it should be sent, without a gap.
func checkAborted(t *testing.T, chat *followingChat, want []string) {
	t.Helper()
	checkCode(t, chat.end(), connect.CodeAborted)
	got := chat.texts()
	if len(got) >= len(want) || !slices.Equal(got, want[:len(got)]) {
		t.Errorf("got %d of %d notes, or with a gap", len(got), len(want))
	}
}
