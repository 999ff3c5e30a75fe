package chat_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
)

// byHand is a store whose tickets the test settles.
type byHand struct {
	notes.Store

	appended []func(error)
}

func (b *byHand) Append(ctx context.Context, at notes.Location, note notes.Note, ticket notes.Ticket) {
	b.appended = append(b.appended, func(err error) {
		var position notes.Position
		if err == nil {
			position, err = notes.Append(ctx, b.Store, at, note)
		}
		ticket.Settle(position, err)
	})
}

// caller is a client that writes notes at one location and then keeps its side open until it is told to stop.
type caller struct {
	notes int
	send  func() error
	stop  chan struct{}
	got   int
}

func newCaller(count int) *caller {
	return &caller{notes: count, send: func() error { return nil }, stop: make(chan struct{})}
}

func (c *caller) Receive() ([]byte, error) {
	if c.notes--; c.notes < 0 {
		<-c.stop
		return nil, io.EOF
	}
	return proto.Marshal(&routeguide.RouteNote{Location: &routeguide.Point{}})
}

func (c *caller) Send([]byte) error {
	c.got++
	return c.send()
}

func (c *caller) Flush() error { return nil }
func (c *caller) Reset()       {}

func (c *caller) StopReceiving() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
}

// serve holds a chat in a goroutine.
func serve(ctx context.Context, host *chat.Server, stream chat.Stream) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := host.Serve(ctx, stream, nil)
		ended <- err
	}()
	return ended
}

// One note is lost. Whether those after it are kept decides what the client is told.
func TestFateOfFailedChatIsToldOnceAllItsNotesAreSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &byHand{Store: notes.NewMemory()}
		ended := serve(t.Context(), chat.NewServer(chat.Options{Store: store}), newCaller(3))
		synctest.Wait()
		store.appended[0](errStore)
		synctest.Wait()
		store.appended[1](errStore)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("the chat ended with %v before its last note was settled", err)
		default:
		}
		store.appended[2](nil)
		if err := <-ended; !errors.Is(err, notes.ErrUnknown) || !errors.Is(err, errStore) {
			t.Errorf("got %v, want notes.ErrUnknown and the store's error", err)
		}
	})
}

// The chat fails while it sends a reply, which the client takes all the same.
func TestCountOfPendingRepliesAfterChatFailsInReply(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		host := chat.NewServer(chat.Options{Store: notes.NewMemory()})
		ctx, cancel := context.WithCancel(t.Context())
		taken := make(chan struct{})
		caller := newCaller(3)
		caller.send = func() error { <-taken; return nil }
		ended := serve(ctx, host, caller)
		synctest.Wait()
		if pending := host.Counts().Pending; pending != 3 {
			t.Errorf("%d replies are pending, want 3", pending)
		}
		caller.StopReceiving()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if pending := host.Counts().Pending; pending != 0 {
			t.Errorf("%d replies are pending after the chat failed, want 0", pending)
		}
		close(taken)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		if pending := host.Counts().Pending; pending != 0 {
			t.Errorf("%d replies are pending after the chat, want 0", pending)
		}
	})
}

func TestOldestPendingOfSeveralNotesIsTheFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &byHand{Store: notes.NewMemory()}
		now := int64(0)
		host := chat.NewServer(chat.Options{Store: store, Now: func() int64 { now += 100; return now }})
		caller := newCaller(3)
		ended := serve(t.Context(), host, caller)
		for i, want := range []int64{100, 200, 300, 1000} {
			synctest.Wait()
			if got := host.OldestPending(1000); got != want {
				t.Errorf("with %d notes answered: got %d, want %d", i, got, want)
			}
			if i < len(store.appended) {
				store.appended[i](nil)
			}
		}
		caller.StopReceiving()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A client takes a note now and then: each time is a progress, though the reply as a whole takes much longer than a
// client may stall.
func TestLongReplyThatIsReadSlowlyIsNotStalled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const stall, count = 10 * time.Second, 50
		store := notes.NewMemory()
		note := notes.Note{Time: 1, Encoded: make([]byte, 64<<10)}
		for range count - 1 {
			if _, err := notes.Append(t.Context(), store, notes.Location{}, note); err != nil {
				t.Fatal(err)
			}
		}
		host := chat.NewServer(chat.Options{Store: store, StallTimeout: stall})
		defer host.Close()
		caller := newCaller(1)
		caller.send = func() error { time.Sleep(stall / 2); return nil }
		ended := serve(t.Context(), host, caller)
		synctest.Wait()
		caller.StopReceiving()
		if err := <-ended; err != nil || caller.got != count {
			t.Errorf("got %d notes and %v, want %d", caller.got, err, count)
		}
	})
}

// forgetful is a store that forgets each note as soon as it is kept.
type forgetful struct{ notes.Store }

func (f forgetful) Append(ctx context.Context, at notes.Location, note notes.Note, ticket notes.Ticket) {
	position, err := notes.Append(ctx, f.Store, at, note)
	if err == nil {
		_, err = f.Forget(ctx, note.Time+1)
	}
	ticket.Settle(position, err)
}

func TestReplyWithoutItsOwnNoteIsErrForgotten(t *testing.T) {
	t.Parallel()
	caller := newCaller(1)
	caller.StopReceiving()
	_, err := chat.NewServer(chat.Options{Store: forgetful{notes.NewMemory()}}).Serve(t.Context(), caller, nil)
	if !errors.Is(err, chat.ErrForgotten) || caller.got != 0 {
		t.Errorf("got %d notes and %v, want chat.ErrForgotten", caller.got, err)
	}
}
