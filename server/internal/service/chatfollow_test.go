package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/notes/pebblestore"
	"example.com/routeguide/server/internal/service"
)

const followHeader = "Routeguide-Follow"

// followingChat is a RouteChat with the request header, and what it has received.
type followingChat struct {
	*connect.BidiStreamForClientSimple[routeguide.RouteNote, routeguide.RouteNote]

	cancel context.CancelFunc
	notes  []*routeguide.RouteNote
}

// openFollowing opens a chat with values of the request header, until the end of the test.
func openFollowing(ctx context.Context, t *testing.T, client routeguideconnect.RouteGuideClient, headers ...string) *followingChat {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(lostAfter, cancel)
	ctx, info := connect.NewClientContext(ctx)
	for _, value := range headers {
		info.RequestHeader().Add(followHeader, value)
	}
	stream, err := client.RouteChat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(nil); err != nil && !errors.Is(err, io.EOF) { // Sends the request headers.
		t.Fatal(err)
	}
	chat := &followingChat{BidiStreamForClientSimple: stream}
	chat.cancel = func() {
		timer.Stop()
		cancel()
		_, _ = stream.CloseRequest(), stream.CloseResponse()
	}
	t.Cleanup(chat.cancel)
	return chat
}

// chatFollowing opens a chat that follows.
func chatFollowing(t *testing.T, client routeguideconnect.RouteGuideClient) *followingChat {
	t.Helper()
	return openFollowing(t.Context(), t, client, "true")
}

func (c *followingChat) send(t *testing.T, sent ...*routeguide.RouteNote) {
	t.Helper()
	for _, note := range sent {
		if err := c.Send(note); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
}

// untilNotes receives until the chat has so many notes.
func (c *followingChat) untilNotes(t *testing.T, count int) {
	t.Helper()
	for len(c.notes) < count {
		note, err := c.Receive()
		if err != nil {
			t.Fatalf("%v, after %d of %d notes: %q", err, len(c.notes), count, c.texts())
		}
		c.notes = append(c.notes, note)
	}
}

// end receives until the chat has ended, and returns its error.
func (c *followingChat) end() error {
	for {
		note, err := c.Receive()
		if err != nil {
			return err
		}
		c.notes = append(c.notes, note)
	}
}

func (c *followingChat) texts() []string {
	var texts []string
	for _, note := range c.notes {
		texts = append(texts, note.GetMessage())
	}
	return texts
}

// textsAt returns the texts of the notes received of a location.
func (c *followingChat) textsAt(longitude int32) []string {
	var texts []string
	for _, note := range c.notes {
		if note.GetLocation().GetLongitude() == longitude {
			texts = append(texts, note.GetMessage())
		}
	}
	return texts
}

func (c *followingChat) check(t *testing.T, want ...string) {
	t.Helper()
	if got := c.texts(); !slices.Equal(got, want) {
		t.Errorf("got the notes %q, want %q", got, want)
	}
}

// The first note at a location brings its log. From then on each note of it comes once, whoever leaves it.
func TestRouteChatThatFollowsHearsOthers(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		leaveTexts(t, client, 1, "1", "2")
		leaveTexts(t, client, 2, "of location 2")
		chat, other := chatFollowing(t, client), chatFollowing(t, client)
		if got := chat.ResponseHeader().Values(followHeader); !slices.Equal(got, []string{"true"}) {
			t.Errorf("before the first note, the response header is %q, want true", got)
		}
		chat.send(t, note(1, "3"))
		chat.untilNotes(t, 3)
		leaveTexts(t, client, 1, "4")
		leaveTexts(t, client, 2, "not followed yet")
		chat.untilNotes(t, 4)
		other.send(t, note(1, "5"))
		other.untilNotes(t, 5)
		chat.untilNotes(t, 5)
		if _, err := chatOf(t.Context(), client, note(1, "6")); err != nil { // It does not follow.
			t.Error(err)
		}
		chat.untilNotes(t, 6)
		chat.send(t, note(1, "7"), note(1, "8"))
		chat.untilNotes(t, 8)
		other.untilNotes(t, 8)
		other.check(t, numbers(1, 8)...)
		chat.send(t, note(2, "mine"))
		chat.untilNotes(t, 11)
		chat.check(t, append(numbers(1, 8), "of location 2", "not followed yet", "mine")...)
		// A note as it was sent: nothing but location and text.
		if want := note(1, "4"); !proto.Equal(chat.notes[3], want) {
			t.Errorf("got %v, want %v", chat.notes[3], want)
		}
	})
}

// History limits the reply to a chat's first note at a location, and nothing later.
func TestHistoryLimitsFirstReplyOfRouteChatThatFollows(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.Chats.History = 2
	url, _ := startWith(t, options)
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithProtoJSON()} {
		client := dial(t, url, option)
		leaveTexts(t, client, 1, "1", "2", "3")
		chat := chatFollowing(t, client)
		chat.send(t, note(1, "4"))
		chat.untilNotes(t, 2)
		leaveTexts(t, client, 1, "5", "6", "7", "8")
		chat.send(t, note(1, "9"))
		chat.untilNotes(t, 7)
		chat.check(t, numbers(3, 9)...)
	}
}

// While chats of every protocol and LeaveNote leave notes at the same locations, each chat is sent the log of each location.
func TestRouteChatsThatFollowHearOneLog(t *testing.T) {
	t.Parallel()
	const locations, each = 3, 300
	url, running := start(t, memorystore.New())
	protocols := []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC(), connect.WithGRPCWeb()}
	codecs := []connect.ClientOption{connect.WithClientOptions(), connect.WithProtoJSON()}
	total := (len(protocols)*len(codecs) + 1) * each // notes
	var chats []*followingChat
	var work sync.WaitGroup
	for _, protocol := range protocols {
		for _, codec := range codecs {
			chat, number := chatFollowing(t, dial(t, url, protocol, codec)), len(chats)
			chats = append(chats, chat)
			work.Go(func() {
				for i := range each {
					if err := chat.Send(note(int32(i%locations), fmt.Sprintf("%d %d", number, i))); err != nil {
						t.Error(err)
					}
				}
			})
			work.Go(func() {
				for len(chat.notes) < total {
					note, err := chat.Receive()
					if err != nil {
						t.Errorf("%v, after %d of %d notes", err, len(chat.notes), total)
						return
					}
					chat.notes = append(chat.notes, note)
				}
			})
		}
	}
	client := dial(t, url)
	work.Go(func() {
		for i := range each {
			if _, err := client.LeaveNote(t.Context(), leaving(int32(i%locations), fmt.Sprint("left ", i), "")); err != nil {
				t.Error(err)
			}
		}
	})
	work.Wait()
	for longitude := range int32(locations) {
		log := follow(t, client, atLocation(longitude, proto.Int32(1000)))
		log.untilCurrent(t)
		log.cancel()
		for number, chat := range chats {
			if got := chat.textsAt(longitude); !slices.Equal(got, log.texts()) {
				t.Errorf("chat %d was sent %d notes of location %d, in another order than the log of %d", number, len(got), longitude, len(log.notes))
			}
		}
	}
	leaveTexts(t, client, 0, "the last one")
	for _, chat := range chats {
		chat.untilNotes(t, total+1) // Nothing comes twice after everything else.
		if last := chat.texts()[total]; last != "the last one" {
			t.Errorf("got %q", last)
		}
		chat.cancel()
	}
	for running.Live().Followers > 0 {
		time.Sleep(time.Millisecond)
	}
}

// After half-close, the chat goes on receiving, until the client cancels the call.
func TestRouteChatThatFollowsGoesOnAfterHalfClose(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		chat := chatFollowing(t, client)
		chat.send(t, note(1, "1"), note(2, "2"))
		if err := chat.CloseRequest(); err != nil {
			t.Fatal(err)
		}
		chat.untilNotes(t, 2)
		leaveTexts(t, client, 1, "3")
		leaveTexts(t, client, 2, "4")
		chat.untilNotes(t, 4)
		chat.check(t, numbers(1, 4)...)
		chat.cancel()
		checkCode(t, chat.end(), connect.CodeCanceled)
	})
}

func TestRouteChatThatFollowsNothingEndsAtHalfClose(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		chat := chatFollowing(t, client)
		if err := chat.CloseRequest(); err != nil {
			t.Fatal(err)
		}
		if err := chat.end(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want io.EOF", err)
		}
		if got := chat.ResponseHeader().Get(followHeader); got != "true" {
			t.Errorf("the response header is %q, want true", got)
		}
		if err := chat.CloseResponse(); err != nil {
			t.Error(err)
		}
	})
}

// The deadline ends a chat that follows, before and after half-close, and so does the maximum age.
func TestRouteChatThatFollowsEndsInTime(t *testing.T) {
	t.Parallel()
	for _, halfClose := range []bool{false, true} {
		test := func(ctx context.Context, t *testing.T, client *routechat.Client, longitude int, code connect.Code, text string) {
			t.Helper()
			chat := openFollowing(ctx, t, client, "true")
			chat.send(t, note(int32(longitude), "1"))
			if halfClose {
				_ = chat.CloseRequest()
			}
			err := chat.end()
			checkCode(t, err, code)
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("the error is %v", err)
			}
			chat.check(t, "1")
		}
		t.Run(fmt.Sprint("at the deadline, half-closed ", halfClose), func(t *testing.T) {
			t.Parallel()
			inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				test(ctx, t, client, 1, connect.CodeDeadlineExceeded, "deadline")
			})
		})
		t.Run(fmt.Sprint("at the maximum age, half-closed ", halfClose), func(t *testing.T) {
			t.Parallel()
			options := bounded()
			options.MaxChatAge = 500 * time.Millisecond
			url, _ := startWith(t, options)
			for i, option := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON()} {
				test(t.Context(), t, dial(t, url, option), i, connect.CodeUnavailable, "maximum age")
			}
		})
	}
}

// A drain sends chats what was kept before, also after half-close and if they do not read, and then UNAVAILABLE.
func TestDrainSendsRouteChatsThatFollowWhatWasKept(t *testing.T) {
	t.Parallel()
	const count = 500
	text := strings.Repeat("x", 1000)
	url, running := start(t, memorystore.New())
	client := dial(t, url)
	var chats []*followingChat
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON()} {
		for _, client := range []routeguideconnect.RouteGuideClient{dialNarrow(t, url), dial(t, url, option)} {
			for _, halfClose := range []bool{false, true} {
				chat := chatFollowing(t, client)
				chat.send(t, note(1, "first"))
				if halfClose {
					_ = chat.CloseRequest()
				}
				chats = append(chats, chat)
				chat.untilNotes(t, len(chats))
			}
		}
	}
	for range count {
		leaveTexts(t, client, 1, text)
	}
	running.Drain()
	for i, chat := range chats {
		checkCode(t, chat.end(), connect.CodeUnavailable)
		if want := len(chats) + count; len(chat.notes) != want {
			t.Errorf("chat %d: got %d notes, want %d", i, len(chat.notes), want)
		}
	}
	awaitDrained(t, running)
	if counts := running.Live(); counts.Followers != 0 {
		t.Errorf("%d followers are left", counts.Followers)
	}
}

// blockedEnds is a store that does not say where its partitions end until unblock is closed.
type blockedEnds struct {
	notes.Store

	blocked, unblock chan struct{}
}

func (s *blockedEnds) Ends(ctx context.Context) ([]notes.Sequence, error) {
	select {
	case s.blocked <- struct{}{}:
	default:
	}
	<-s.unblock
	return s.Store.Ends(ctx)
}

// A chat that was opened and half-closed before a drain, and begins to follow after it, ends, too.
func TestDrainEndsRouteChatThatBeginsToFollow(t *testing.T) {
	t.Parallel()
	store := &blockedEnds{memorystore.New(), make(chan struct{}, 1), make(chan struct{})}
	url, running := start(t, store)
	chat := chatFollowing(t, dial(t, url))
	chat.send(t, note(1, "1"))
	_ = chat.CloseRequest()
	<-store.blocked
	running.Drain()
	close(store.unblock)
	checkCode(t, chat.end(), connect.CodeUnavailable)
	awaitDrained(t, running)
}

func TestRouteChatThatFollowsEndsAtInvalidNote(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		leaveTexts(t, client, 1, "1")
		chat := chatFollowing(t, client)
		chat.send(t, note(1, "2"), note(2, "3"), note(1, "4"), &routeguide.RouteNote{Message: "where?"}, note(1, "5"))
		err := chat.end()
		checkField(t, err, "location")
		if at1, at2 := chat.textsAt(1), chat.textsAt(2); !slices.Equal(at1, []string{"1", "2", "4"}) || !slices.Equal(at2, []string{"3"}) {
			t.Errorf("got %q and %q", at1, at2)
		}
		checkLog(t, client, 1, "1", "2", "4")
	})
}

// A note at one location too many ends the chat, after the others were answered.
func TestRouteChatFollowsThousandLocations(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		chat := chatFollowing(t, client)
		for longitude := range int32(live.MaxChatLocations) {
			chat.send(t, note(longitude, fmt.Sprint(longitude)))
		}
		chat.untilNotes(t, live.MaxChatLocations)
		chat.send(t, note(1, "again"))
		leaveTexts(t, client, 999, "of another one")
		chat.untilNotes(t, live.MaxChatLocations+2)
		chat.send(t, note(live.MaxChatLocations, "one too many"))
		err := chat.end()
		checkCode(t, err, connect.CodeResourceExhausted)
		if err == nil || !strings.Contains(err.Error(), "1000") {
			t.Errorf("the error is %v, want one that names the bound", err)
		}
		if len(chat.notes) != live.MaxChatLocations+2 {
			t.Errorf("got %d notes", len(chat.notes))
		}
		checkLog(t, client, live.MaxChatLocations)
	})
}

func TestRouteChatRefusesOtherValuesOfFollowHeader(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		for _, values := range [][]string{{"maybe"}, {"TRUE"}, {"1"}, {""}, {"true", "false"}, {"true", "maybe"}} {
			chat := openFollowing(t.Context(), t, client, values...)
			chat.send(t, note(1, "refused"))
			err := chat.end()
			checkField(t, err, strings.ToLower(followHeader))
			if len(chat.notes) > 0 {
				t.Errorf("%q: got %q", values, chat.texts())
			}
			chat.cancel()
		}
		checkLog(t, client, 1)
	})
}

// Without the header, or with "false", each reply is the whole log, and half-close ends the chat.
func TestRouteChatDoesNotFollowWithoutHeader(t *testing.T) {
	t.Parallel()
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		for longitude, values := range [][]string{nil, {"false"}} {
			longitude := int32(longitude)
			chat := openFollowing(t.Context(), t, client, values...)
			chat.send(t, note(longitude, "1"))
			chat.untilNotes(t, 1)
			leaveTexts(t, client, longitude, "2")
			chat.send(t, note(longitude, "3"))
			chat.untilNotes(t, 4)
			leaveTexts(t, client, longitude, "4")
			_ = chat.CloseRequest()
			if err := chat.end(); !errors.Is(err, io.EOF) {
				t.Errorf("%q: got %v, want io.EOF", values, err)
			}
			chat.check(t, "1", "1", "2", "3")
			if got := chat.ResponseHeader().Values(followHeader); len(got) > 0 {
				t.Errorf("%q: the response header is %q", values, got)
			}
		}
	})
}

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

// Chats that follow are chats to the quotas.
func TestMaxChatsCountsRouteChatsThatFollow(t *testing.T) {
	t.Parallel()
	options := func() service.Options {
		options := bounded()
		options.MaxChats, options.MaxFollowers = 1, 1
		return options
	}
	url, _ := startWith(t, options())
	client := dial(t, url)
	first := chatFollowing(t, client)
	first.send(t, note(1, "1"))
	first.untilNotes(t, 1)
	second := chatFollowing(t, client)
	second.send(t, note(1, "2"))
	checkCode(t, second.end(), connect.CodeResourceExhausted)
	following := follow(t, client, atLocation(1, nil))
	following.untilCurrent(t)
	following.check(t, 1, 0, "1")
}
