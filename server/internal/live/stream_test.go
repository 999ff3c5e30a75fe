package live_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

// stream records the responses of a call, as a client that reads them. Its messages go by the goroutine of the call, and if it is direct, by
// the hub's too.
type stream struct {
	gate   chan struct{} // if not nil, each Send takes an element
	delay  time.Duration // of each Send
	direct bool
	tries  int // of the hub

	mu      sync.Mutex
	changed sync.Cond
	heard   []*routeguidev1.Note
	cursor  []byte
	cursors int // responses with one
	current int // responses
	resets  int
	failed  error // of Send
}

func newStream() *stream {
	s := &stream{}
	s.changed.L = &s.mu
	return s
}

func (s *stream) Start() error { return nil }

func (s *stream) Flush() error { return nil }

func (s *stream) Queue() wire.Queue {
	if !s.direct {
		return nil
	}
	return s
}

// TryWrite takes all envelopes but each seventh, as where a window is full.
func (s *stream) TryWrite(envelopes []byte) (flush func(), ok bool) {
	if s.tries++; s.tries%7 == 0 {
		return nil, false
	}
	return func() {}, s.Send(wire.MessageOf(envelopes)) == nil
}

func (s *stream) Send(encoded []byte) error {
	if s.gate != nil {
		<-s.gate
	}
	time.Sleep(s.delay)
	var response routeguidev1.FollowNotesResponse
	if err := proto.Unmarshal(encoded, &response); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	if response.GetReset_() {
		s.heard, s.cursor = nil, nil
		s.resets++
	}
	s.heard = append(s.heard, response.GetNotes()...)
	if len(response.GetCursor()) > 0 {
		s.cursor = response.GetCursor()
		s.cursors++
	}
	if response.GetCurrent() {
		s.current++
	}
	s.changed.Broadcast()
	return nil
}

var errCut = errors.New("the connection is cut")

// cut makes sends fail, and returns the last cursor and the number of notes before it.
func (s *stream) cut() (cursor []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = errCut
	return s.cursor
}

// wait waits until a condition holds.
func (s *stream) wait(condition func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !condition() {
		s.changed.Wait()
	}
}

// wake makes wait look at its condition.
func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

// waitFor waits until a number of notes were heard.
func (s *stream) waitFor(count int) {
	s.wait(func() bool { return len(s.heard) >= count })
}

func (s *stream) waitCurrent() {
	s.wait(func() bool { return s.current > 0 })
}

// texts returns the texts of the notes heard.
func (s *stream) texts() (texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, note := range s.heard {
		texts = append(texts, note.GetText())
	}
	return texts
}

func (s *stream) check(t *testing.T, want ...string) {
	t.Helper()
	if got := s.texts(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("heard %q, want %q", got, want)
	}
}

func newHub(t *testing.T, options live.Options) *live.Hub {
	t.Helper()
	hub := live.NewHub(options)
	t.Cleanup(hub.Close)
	return hub
}

// follow starts a call of FollowNotes, and returns a function that ends it and returns its error.
func follow(t *testing.T, hub *live.Hub, request live.Request, stream *stream) (end func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- hub.FollowNotes(ctx, request, stream) }()
	var once sync.Once
	var err error
	end = func() error {
		once.Do(func() {
			cancel()
			err = <-ended
		})
		return err
	}
	t.Cleanup(func() { _ = end() })
	return end
}

// leave keeps a note.
func leave(t *testing.T, store notes.Store, location notes.Location, text string) {
	t.Helper()
	if _, err := notes.Append(t.Context(), store, location, draft(t, location, text)); err != nil {
		t.Fatal(err)
	}
}

func draft(t *testing.T, location notes.Location, text string) notes.Note {
	t.Helper()
	encoded, err := proto.Marshal(&routeguide.RouteNote{
		Location: &routeguide.Point{Latitude: location.Latitude, Longitude: location.Longitude},
		Message:  text,
	})
	if err != nil {
		t.Fatal(err)
	}
	return notes.Note{Time: notes.Now(), Encoded: encoded}
}

func at(location notes.Location) live.Filter { return live.Filter{Location: &location} }

var world = live.Filter{Rectangle: notes.World}
