package service_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// A call with a cursor sends what was left after it, and nothing that was sent before.
func TestFollowNotesContinuesAtCursor(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]func(cursor ...byte) *followRequest{
		"location":  func(cursor ...byte) *followRequest { return atLocation(1, nil, cursor...) },
		"rectangle": func(cursor ...byte) *followRequest { return within(-5, 5, proto.Int32(3), cursor...) },
		"the world": func(cursor ...byte) *followRequest { return everywhere(nil, cursor...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
				first := follow(t, client, request())
				first.untilCurrent(t)
				first.cancel()
				var cursor []byte
				for round := range 3 { // From an empty log on, and from notes on.
					missed := numbers(10*round, 10*round+9)
					leaveTexts(t, client, 1, missed...)
					if round == 0 {
						cursor = first.cursor
					}
					following := follow(t, client, request(cursor...))
					following.untilCurrent(t)
					following.check(t, 1, 0, missed...)
					cursor = following.cursor
					following.cancel()
				}
				nothing := follow(t, client, request(cursor...))
				nothing.untilCurrent(t)
				leaveTexts(t, client, 1, "later")
				nothing.untilNotes(t, 1)
				nothing.check(t, 1, 0, "later")
			})
		})
	}
}

// Followers that break off at random and continue at their last cursors miss nothing while notes are left, by RouteChat
// and LeaveNote, at the locations that they follow. At a location, nothing comes twice.
func TestFollowNotesThatBreaksOffMissesNothing(t *testing.T) {
	t.Parallel()
	const locations, writers, each = 3, 4, 500
	inEachProtocol(t, func(t *testing.T, client *routechat.Client) {
		var work sync.WaitGroup
		for writer := range writers {
			work.Go(func() {
				for i := range each {
					longitude, text := int32(i%locations), fmt.Sprintf("%d %d", writer, i)
					if writer%2 == 0 {
						if _, err := client.LeaveNote(t.Context(), leaving(longitude, text, "")); err != nil {
							t.Error(err)
						}
					}
				}
			})
			if writer%2 == 1 {
				work.Go(func() {
					sent := make([]*routeguide.RouteNote, each)
					for i := range sent {
						sent[i] = note(int32(i%locations), fmt.Sprintf("%d %d", writer, i))
					}
					for part := range slices.Chunk(sent, 10) {
						if _, err := chatOf(t.Context(), client, part...); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		var places [locations][]*routeguidev1.Note
		for longitude := range places {
			work.Go(func() {
				places[longitude] = followBreakingOff(t, client, func(cursor []byte) *followRequest {
					return atLocation(int32(longitude), proto.Int32(1000), cursor...)
				}, func(heard []*routeguidev1.Note) bool {
					return len(heard) == writers*((each+locations-1-longitude)/locations)
				})
			})
		}
		var area []*routeguidev1.Note
		work.Go(func() {
			area = followBreakingOff(t, client, func(cursor []byte) *followRequest { return within(-5, 5, proto.Int32(1000), cursor...) },
				func(heard []*routeguidev1.Note) bool { return len(distinct(heard)) == writers*each })
		})
		work.Wait()
		inArea := distinct(area)
		for longitude, heard := range places {
			log := follow(t, client, atLocation(int32(longitude), proto.Int32(1000)))
			log.untilCurrent(t)
			if !slices.EqualFunc(heard, log.notes, func(a, b *routeguidev1.Note) bool { return proto.Equal(a, b) }) {
				t.Errorf("the follower of longitude %d heard %d notes, and the log has %d", longitude, len(heard), len(log.notes))
			}
			for _, left := range log.notes {
				if !proto.Equal(inArea[key(left)], left) {
					t.Errorf("the follower of the rectangle did not hear %v", left)
				}
			}
		}
	})
}

func key(note *routeguidev1.Note) [2]uint64 {
	return [2]uint64{uint64(note.GetLocation().GetLongitude()), note.GetPosition()}
}

// distinct returns the notes without doubles.
func distinct(heard []*routeguidev1.Note) map[[2]uint64]*routeguidev1.Note {
	found := make(map[[2]uint64]*routeguidev1.Note)
	for _, note := range heard {
		found[key(note)] = note
	}
	return found
}

// followBreakingOff follows until it has heard all, and breaks off after each cursor or a few responses later. It drops what came
// after the last cursor, since that comes again.
func followBreakingOff(t *testing.T, client noteClient, request func(cursor []byte) *followRequest, all func(heard []*routeguidev1.Note) bool) []*routeguidev1.Note {
	var heard []*routeguidev1.Note
	var cursor []byte
	for progress := time.Now(); time.Since(progress) < lostAfter; {
		before := len(heard)
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(lostAfter, cancel)
		stream, err := client.FollowNotes(ctx, request(cursor))
		if err != nil {
			t.Error(err)
		}
		following := &follower{stream: stream, area: request(nil).GetRectangle() != nil}
		for more := rand.IntN(20); err == nil && (more > 0 || len(following.cursor) == 0); {
			if err = following.receive(); len(following.cursor) > 0 {
				more--
			}
			if err == nil && all(append(slices.Clip(heard), following.notes...)) {
				more = 0
			}
		}
		if err != nil || following.resets > 0 || following.doubles > 0 && !following.area {
			t.Errorf("%v, %d resets and %d doubles", err, following.resets, following.doubles)
		}
		finished := all(append(slices.Clip(heard), following.notes...))
		if finished {
			heard = append(heard, following.notes...)
		} else {
			heard = append(heard, following.notes[:following.marked]...)
		}
		if len(heard) > before {
			progress = time.Now() // How long all of it takes is the machine's matter.
		}
		cursor = following.cursor
		timer.Stop()
		cancel()
		_ = stream.Close()
		if finished || t.Failed() {
			return heard
		}
	}
	t.Errorf("not all was heard, but only %d notes", len(heard))
	return heard
}

// A cursor of another store leads to a reset, the notes of this store, and current.
func TestFollowNotesResetsAtCursorOfAnotherStore(t *testing.T) {
	t.Parallel()
	otherURL, _ := startWith(t, bounded())
	other := dial(t, otherURL)
	leaveTexts(t, other, 1, numbers(1, 50)...)
	place, area := follow(t, other, atLocation(1, nil)), follow(t, other, within(-5, 5, nil))
	place.untilCurrent(t)
	area.untilCurrent(t)
	inEachFollowing(t, bounded, func(t *testing.T, client noteClient) {
		leaveTexts(t, client, 1, "1", "2", "3")
		for _, request := range []*followRequest{atLocation(1, proto.Int32(2), place.cursor...), within(-5, 5, proto.Int32(2), area.cursor...)} {
			following := follow(t, client, request)
			if err := following.receive(); err != nil || following.resets != 1 || len(following.notes) > 0 {
				t.Errorf("got %v, %v first, want a reset", following, err)
			}
			following.untilCurrent(t)
			following.check(t, 1, 1, "2", "3")
			leaveTexts(t, client, 1, "4")
			following.untilNotes(t, 3)
			following.check(t, 1, 1, "2", "3", "4")
			following.cancel()
			again := follow(t, client, &followRequest{Filter: request.GetFilter(), Cursor: following.cursor}) // Of this store now.
			again.untilCurrent(t)
			if again.resets != 0 || !slices.Equal(again.texts(), following.texts()[following.marked:]) {
				t.Errorf("got %q and %d resets after the cursor at %d", again.texts(), again.resets, following.marked)
			}
			again.cancel()
			leaveTexts(t, client, 1, "2", "3") // As before, for the next request.
		}
	})
}

// A cursor after which notes were forgotten leads to a reset. If nothing was missed, it does not.
func TestFollowNotesResetsAfterRetention(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]func(cursor ...byte) *followRequest{
		"location":  func(cursor ...byte) *followRequest { return atLocation(1, proto.Int32(5), cursor...) },
		"rectangle": func(cursor ...byte) *followRequest { return within(-5, 5, proto.Int32(5), cursor...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := memorystore.New()
			options := bounded()
			options.Chats.Store = store // Without Retention, a note that is gone was forgotten, at any age.
			url, running := startWith(t, options)
			client := dial(t, url)
			leaveTexts(t, client, 1, "1", "2")
			first := follow(t, client, request())
			first.untilCurrent(t)
			first.cancel()
			leaveTexts(t, client, 1, "3", "4")
			kept := notes.Now()
			leaveTexts(t, client, 1, "5")
			still := follow(t, client, request(first.cursor...))
			still.untilCurrent(t)
			still.check(t, 1, 0, "3", "4", "5")
			still.cancel()
			if _, err := store.Forget(t.Context(), kept); err != nil {
				t.Fatal(err)
			}
			following := follow(t, client, request(first.cursor...))
			following.untilCurrent(t)
			following.check(t, 1, 1, "5")
			if resets := running.Live().Resets; resets != 1 {
				t.Errorf("%d resets are counted, want 1", resets)
			}
			leaveTexts(t, client, 1, "6")
			following.untilNotes(t, 2)
			following.check(t, 1, 1, "5", "6")
			if _, err := store.Forget(t.Context(), notes.Now()); err != nil {
				t.Fatal(err)
			}
			nothing := follow(t, client, request(first.cursor...))
			nothing.untilCurrent(t)
			nothing.check(t, 1, 1)
		})
	}
}
