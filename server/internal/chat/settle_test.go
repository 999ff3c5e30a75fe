package chat_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/notes/notestest"
)

// manualStore is a store whose tickets are settled by the test.
type manualStore struct {
	notes.Store

	settle []func(error) // by note, in the order of the appends
}

func (m *manualStore) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	m.settle = append(m.settle, func(err error) {
		var receipt notes.Receipt
		if err == nil {
			receipt, err = notes.Append(ctx, m.Store, location, note)
		}
		ticket.Settle(receipt, err)
	})
}

// caller is the stream of a client that sends notes at one location and keeps its side open until
// StopReceiving.
type caller struct {
	notes int          // notes left to receive
	send  func() error // called by Send
	stop  chan struct{}
	got   int // notes sent to the client
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

func (c *caller) Send(chunk []notes.Note) error {
	c.got += len(chunk)
	return c.send()
}

func (c *caller) Flush() error        { return nil }
func (c *caller) TrySend([]byte) bool { return false }
func (c *caller) Buffered() bool      { return false }
func (c *caller) Reset()              {}

func (c *caller) StopReceiving() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
}

// serve serves a chat in a new goroutine.
func serve(ctx context.Context, server *chat.Server, stream chat.Stream) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := server.Serve(ctx, stream, nil)
		ended <- err
	}()
	return ended
}

// The first note is not kept. The chat's error depends on whether later notes are, so Serve waits for all
// tickets.
func TestServeWaitsForAllTicketsAfterAppendError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &manualStore{Store: memorystore.New()}
		ended := serve(t.Context(), chat.NewServer(chat.Options{Store: store}), newCaller(3))
		synctest.Wait()
		store.settle[0](errStore)
		synctest.Wait()
		store.settle[1](errStore)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("the chat ended with %v before its last note was settled", err)
		default:
		}
		store.settle[2](nil)
		if err := <-ended; !errors.Is(err, notes.ErrUnknown) || !errors.Is(err, errStore) {
			t.Errorf("got %v, want notes.ErrUnknown and the store's error", err)
		}
	})
}

// The chat fails during a Send that succeeds afterwards.
func TestCountsPendingAfterFailureDuringSend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := chat.NewServer(chat.Options{Store: memorystore.New()})
		ctx, cancel := context.WithCancel(t.Context())
		unblock := make(chan struct{})
		caller := newCaller(3)
		caller.send = func() error { <-unblock; return nil }
		ended := serve(ctx, server, caller)
		synctest.Wait()
		if pending := server.Counts().Pending; pending != 3 {
			t.Errorf("%d replies are pending, want 3", pending)
		}
		caller.StopReceiving()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if pending := server.Counts().Pending; pending != 0 {
			t.Errorf("%d replies are pending after the chat failed, want 0", pending)
		}
		close(unblock)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		if pending := server.Counts().Pending; pending != 0 {
			t.Errorf("%d replies are pending after the chat, want 0", pending)
		}
	})
}

func TestServerOldestPendingOfSeveralNotes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &manualStore{Store: memorystore.New()}
		now := int64(0)
		server := chat.NewServer(chat.Options{Store: store, Now: func() int64 { now += 100; return now }})
		caller := newCaller(3)
		ended := serve(t.Context(), server, caller)
		for i, want := range []int64{100, 200, 300, 1000} {
			synctest.Wait()
			if got := server.OldestPending(1000); got != want {
				t.Errorf("with %d notes answered: got %d, want %d", i, got, want)
			}
			if i < len(store.settle) {
				store.settle[i](nil)
			}
		}
		caller.StopReceiving()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestServeErrForgotten(t *testing.T) {
	t.Parallel()
	caller := newCaller(1)
	caller.StopReceiving()
	_, err := chat.NewServer(chat.Options{Store: notestest.Forgetful{Store: memorystore.New()}}).Serve(t.Context(), caller, nil)
	if !errors.Is(err, chat.ErrForgotten) || caller.got != 0 {
		t.Errorf("got %d notes and %v, want chat.ErrForgotten", caller.got, err)
	}
}
