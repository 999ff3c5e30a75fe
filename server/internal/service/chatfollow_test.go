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
	"example.com/routeguide/server/internal/service"
)

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
