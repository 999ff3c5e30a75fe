package service_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/service"
)

func TestFollowNotesEndsAtDeadline(t *testing.T) {
	t.Parallel()
	inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		checkCode(t, followUntil(ctx, t, client, atLocation(1, nil)).end(), connect.CodeDeadlineExceeded)
	})
}

func TestMaxChatAgeEndsFollowNotes(t *testing.T) {
	t.Parallel()
	options := func() service.Options {
		options := bounded()
		options.MaxChatAge = 200 * time.Millisecond
		return options
	}
	inEachFollowing(t, options, func(t *testing.T, client noteClient) {
		leaveTexts(t, client, 1, "1")
		following := follow(t, client, within(-5, 5, nil))
		err := following.end()
		checkCode(t, err, connect.CodeUnavailable)
		if err == nil || !strings.Contains(err.Error(), "maximum age") {
			t.Errorf("the error is %v", err)
		}
		following.check(t, 1, 0, "1")
		leaveTexts(t, client, 1, "2")
		again := follow(t, client, within(-5, 5, nil, following.cursor...))
		again.untilCurrent(t)
		again.check(t, 1, 0, "2")
	})
}

// A drain sends each follower what was kept before, however slow it is, and a cursor that is valid on another server of the store.
func TestDrainSendsFollowersWhatWasKept(t *testing.T) {
	t.Parallel()
	store := memorystore.New()
	options := bounded()
	options.Chats.Store = store
	url, running := startWith(t, options)
	other, _ := startWith(t, options)
	const count = 500
	text := strings.Repeat("x", 1000)
	requests := map[string]func(cursor ...byte) *followRequest{
		"location":  func(cursor ...byte) *followRequest { return atLocation(1, nil, cursor...) },
		"rectangle": func(cursor ...byte) *followRequest { return within(-5, 5, nil, cursor...) },
	}
	followers := make(map[string]*follower)
	for name, request := range requests {
		for codec, option := range map[string]connect.ClientOption{"proto": connect.WithGRPC(), "json": connect.WithProtoJSON()} {
			slow, idle := follow(t, dialNarrowFollower(t, url, option), request()), follow(t, dial(t, url, option), request())
			slow.untilCurrent(t)
			idle.untilCurrent(t)
			followers[name+" slow "+codec], followers[name+" idle "+codec] = slow, idle
		}
	}
	client := dial(t, url)
	for range count {
		leaveTexts(t, client, 1, text)
	}
	running.Drain()
	ends := make(map[string]error)
	for name, following := range followers {
		ends[name] = following.end()
	}
	awaitDrained(t, running)
	leaveTexts(t, dial(t, other), 1, "after the drain")
	for name, following := range followers {
		err := ends[name]
		checkCode(t, err, connect.CodeUnavailable)
		if err == nil || !strings.Contains(err.Error(), "shutting down") {
			t.Errorf("%s: the error is %v", name, err)
		}
		if len(following.notes) < count || following.marked != len(following.notes) {
			t.Errorf("%s: got %d of %d notes, and a cursor after %d", name, len(following.notes), count, following.marked)
		}
		location, _, _ := strings.Cut(name, " ")
		again := follow(t, dial(t, other), requests[location](following.cursor...))
		again.untilCurrent(t)
		all := append(following.texts(), again.texts()...)
		if want := append(slices.Repeat([]string{text}, count), "after the drain"); !slices.Equal(all, want) {
			t.Errorf("%s: got %d notes in both calls, want %d", name, len(all), len(want))
		}
	}
	if followers := running.Live().Followers; followers != 0 {
		t.Errorf("%d followers are left", followers)
	}
	checkCode(t, follow(t, client, atLocation(1, nil)).end(), connect.CodeUnavailable)
}

// MaxFollowers bounds the calls of FollowNotes, in total and for each client, and counts no other calls.
func TestMaxFollowersRefusesFollowNotes(t *testing.T) {
	t.Parallel()
	for text, quota := range map[string]struct {
		most  int
		share float64
	}{"on this server": {2, 0}, "of this client": {20, 0.1}} {
		options := func() service.Options {
			options := bounded()
			options.MaxFollowers, options.ClientShare = quota.most, quota.share
			options.MaxChats, options.MaxCalls = 10, 10
			return options
		}
		inEachFollowing(t, options, func(t *testing.T, client noteClient) {
			first, second := follow(t, client, atLocation(1, nil)), follow(t, client, within(0, 1, nil))
			first.untilCurrent(t)
			second.untilCurrent(t)
			for range 20 {
				err := follow(t, client, atLocation(2, nil)).end()
				checkCode(t, err, connect.CodeResourceExhausted)
				if err == nil || !strings.Contains(err.Error(), "followers") || !strings.Contains(err.Error(), text) {
					t.Fatalf("the error is %v", err)
				}
			}
			leaveTexts(t, client, 1, "a call meanwhile")
			first.untilNotes(t, 1)
			first.cancel()
			second.cancel()
			// The server learns of it a little later.
			for deadline := time.Now().Add(lostAfter); ; {
				third := follow(t, client, atLocation(1, nil))
				err := third.receive()
				third.cancel()
				if err == nil {
					break
				}
				if checkCode(t, err, connect.CodeResourceExhausted); time.Now().After(deadline) {
					t.Fatal("the quota is not released")
				}
			}
		})
	}
}

// Followers that come and go leave nothing behind.
func TestFollowNotesThatEndsIsForgotten(t *testing.T) {
	t.Parallel()
	url, running := startWith(t, bounded())
	client := dial(t, url)
	open := make(map[int]*follower)
	for i := range 50 {
		following := follow(t, client, []*followRequest{atLocation(1, nil), within(-5, 5, nil), everywhere(proto.Int32(0))}[i%3])
		following.untilCurrent(t)
		open[i] = following
	}
	if followers := running.Live().Followers; followers != 50 {
		t.Errorf("there are %d followers, want 50", followers)
	}
	for following := range maps.Values(open) {
		following.cancel()
	}
	for running.Live().Followers > 0 {
		time.Sleep(time.Millisecond)
	}
	if calls := running.Calls(); calls != 0 {
		t.Errorf("%d other calls are open", calls)
	}
}
