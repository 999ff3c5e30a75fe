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
)

// gated is a store that is not read from until it is let.
type gated struct {
	notes.Store

	reading, let chan struct{}
	once         sync.Once
}

func (g *gated) Range(ctx context.Context, at notes.Location, span notes.Span) iter.Seq2[[]notes.Note, error] {
	return func(yield func([]notes.Note, error) bool) {
		g.once.Do(func() { close(g.reading) })
		<-g.let
		g.Store.Range(ctx, at, span)(yield)
	}
}

// deaf is a client that takes nothing: what is sent to it blocks until the stream is reset.
type deaf struct {
	receive     chan []byte // the client's notes
	stop, reset chan struct{}
	stopping    sync.Once
	resetting   sync.Once
}

var errReset = errors.New("the stream was reset")

func (d *deaf) Receive() ([]byte, error) {
	select {
	case note := <-d.receive:
		return note, nil
	case <-d.stop:
		return nil, io.ErrUnexpectedEOF
	}
}

func (d *deaf) Send([]byte) error {
	<-d.reset
	return errReset
}

func (d *deaf) Flush() error   { return d.Send(nil) }
func (d *deaf) StopReceiving() { d.stopping.Do(func() { close(d.stop) }) }
func (d *deaf) Reset()         { d.resetting.Do(func() { close(d.reset) }) }

// A chat that is ended when it is about to write, and is not yet seen to, is reset before the write can block.
func TestChatThatIsEndedWhileItBeginsToWriteIsReset(t *testing.T) {
	t.Parallel()
	store := &gated{Store: notes.NewMemory(), reading: make(chan struct{}), let: make(chan struct{})}
	host := chat.NewServer(chat.Options{Store: store, MaxPendingInAll: 1})
	defer host.Close()
	client := &deaf{receive: make(chan []byte), stop: make(chan struct{}), reset: make(chan struct{})}
	served := make(chan error, 1)
	go func() {
		_, err := host.Serve(t.Context(), client, nil)
		served <- err
	}()
	encoded, err := proto.Marshal(&routeguide.RouteNote{Location: &routeguide.Point{}})
	if err != nil {
		t.Fatal(err)
	}
	client.receive <- encoded
	<-store.reading           // The chat replies to the first note,
	client.receive <- encoded // and the second one is too many.
	for host.Counts().Shed == 0 {
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
