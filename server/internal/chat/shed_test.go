package chat_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// gated is a store whose Range blocks until let is closed. It closes reading at the first call.
type gated struct {
	notes.Store

	reading, let chan struct{}
	once         sync.Once
}

func (g *gated) Range(ctx context.Context, location notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		g.once.Do(func() { close(g.reading) })
		<-g.let
		g.Store.Range(ctx, location, span)(yield)
	}
}

// blockedStream is the stream of a client that never reads: Send and Flush block until Reset.
type blockedStream struct {
	receive     chan []byte // the client's notes
	stop, reset chan struct{}
	stopping    sync.Once
	resetting   sync.Once
}

var errReset = errors.New("the stream was reset")

func (s *blockedStream) Receive() ([]byte, error) {
	select {
	case note := <-s.receive:
		return note, nil
	case <-s.stop:
		return nil, io.ErrUnexpectedEOF
	}
}

func (s *blockedStream) Send([]notes.Note) error {
	<-s.reset
	return errReset
}

func (s *blockedStream) Flush() error        { return s.Send(nil) }
func (s *blockedStream) TrySend([]byte) bool { return false }
func (s *blockedStream) Buffered() bool      { return false }
func (s *blockedStream) StopReceiving()      { s.stopping.Do(func() { close(s.stop) }) }
func (s *blockedStream) Reset()              { s.resetting.Do(func() { close(s.reset) }) }

// A chat that is shed just before it marks its write as in flight is reset before the write can block.
func TestShedResetsChatThatIsAboutToWrite(t *testing.T) {
	t.Parallel()
	store := &gated{Store: memorystore.New(), reading: make(chan struct{}), let: make(chan struct{})}
	if _, err := notes.Append(t.Context(), store, notes.Location{}, notes.Note{Encoded: []byte("a first note")}); err != nil {
		t.Fatal(err)
	}
	server := chat.NewServer(chat.Options{Store: store, MaxPendingInAll: 1})
	client := &blockedStream{receive: make(chan []byte), stop: make(chan struct{}), reset: make(chan struct{})}
	served := make(chan error, 1)
	go func() {
		_, err := server.Serve(t.Context(), client, nil)
		served <- err
	}()
	encoded, err := proto.Marshal(&routeguide.RouteNote{Location: &routeguide.Point{}})
	if err != nil {
		t.Fatal(err)
	}
	client.receive <- encoded
	<-store.reading           // The first reply is being read.
	client.receive <- encoded // The second note exceeds MaxPendingInAll.
	for server.Counts().Shed == 0 {
		time.Sleep(time.Millisecond)
	}
	close(store.let)
	select {
	case err := <-served:
		if !errors.Is(err, chat.ErrTooManyPending) {
			t.Errorf("the chat ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		client.Reset()
		t.Errorf("the chat was not reset, and blocks: %v", <-served)
	}
}
