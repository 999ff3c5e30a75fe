package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/server/internal/notes"
)

// follow starts a follower of a location or of a rectangle.
func (c *crowd) follow(t *testing.T, newest int32, filter any, protocol connect.ClientOption) *listener {
	t.Helper()
	listener := &listener{
		crowd: c, name: fmt.Sprintf("follower %d of %T", len(c.listeners), filter), request: &routeguidev1.FollowNotesRequest{Newest: &newest},
		segments: []segment{{}}, fromStart: !c.begun,
	}
	switch filter := filter.(type) {
	case *routeguide.Point:
		listener.request.Filter = &routeguidev1.FollowNotesRequest_Location{Location: filter}
	case *routeguide.Rectangle:
		listener.request.Filter = &routeguidev1.FollowNotesRequest_Rectangle{Rectangle: filter}
	default:
		t.Fatalf("%T is no filter", filter)
	}
	c.listeners = append(c.listeners, listener)
	first := len(c.listeners)
	c.running.Go(func() {
		for server := first; c.ctx.Err() == nil; server++ {
			if err := listener.call(t, server, protocol); !retryable(err) && c.ctx.Err() == nil {
				t.Errorf("%s: %v", listener.name, err)
				return
			}
			backoff()
		}
	})
	return listener
}

// retryable returns whether the contract says to repeat a call of FollowNotes with its cursor.
func retryable(err error) bool {
	return !slices.Contains([]connect.Code{
		connect.CodeInvalidArgument, connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeUnimplemented, connect.CodeDataLoss,
	}, connect.CodeOf(err))
}

// A listener is a client that follows: it calls again with the last cursor whenever a call ends.
type listener struct {
	crowd     *crowd
	name      string
	request   *routeguidev1.FollowNotesRequest // with the last cursor
	fromStart bool                             // it begins before the first note

	mu       sync.Mutex // guards the rest
	segments []segment  // what was received, between resets
	calls    int
	repeated int // notes that came twice
	currents int
	checked  int // notes of crowd.left that were received, if they are of the filter
	// hold stops it, once it is current, until the channel is closed: it does not read or, if away is set, ends its call. It is nil if it
	// is not to stop.
	hold chan struct{}
	away bool
	held bool
}

// A segment is notes by location, in the order in which they were received.
type segment map[notes.Location]*received

type received struct {
	positions []uint64
	texts     []string
}

func (l *listener) isCurrent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.currents > 0
}

func (l *listener) isHeld() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

func (l *listener) resets() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.segments) - 1
}

// received returns the number of notes received.
func (l *listener) received() (count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, segment := range l.segments {
		for _, received := range segment {
			count += len(received.texts)
		}
	}
	return count
}

func (l *listener) follows(location notes.Location) bool {
	if point := l.request.GetLocation(); point != nil {
		return location == locationOf(point)
	}
	lo, hi := locationOf(l.request.GetRectangle().GetLo()), locationOf(l.request.GetRectangle().GetHi())
	return notes.Rectangle{South: lo.Latitude, West: lo.Longitude, North: hi.Latitude, East: hi.Longitude}.Contains(location)
}

// hasAll returns whether the last note of each location was received.
func (l *listener) hasAll() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, point := range l.crowd.locations {
		if location := locationOf(point); l.follows(location) {
			if received := l.segments[len(l.segments)-1][location]; received == nil || !slices.Contains(received.texts, lastText) {
				return false
			}
		}
	}
	return true
}

// call makes one call, and returns its error.
func (l *listener) call(t *testing.T, server int, protocol connect.ClientOption) error {
	client, end := l.crowd.client(t, server, protocol)
	defer end()
	ctx, cancel := context.WithCancel(l.crowd.ctx)
	defer cancel()
	l.crowd.mu.Lock()
	before := slices.Clone(l.crowd.left)
	l.crowd.mu.Unlock()
	l.mu.Lock()
	l.calls++
	l.mu.Unlock()
	stream, err := client.FollowNotes(ctx, l.request)
	if err != nil {
		return err
	}
	defer func() {
		cancel()
		_ = stream.Close()
	}()
	owed := 1 // times that current must still be said
	for stream.Receive() {
		if hold, away := l.receive(t, stream.Msg(), before, &owed); hold != nil {
			if away {
				cancel()
			}
			select {
			case <-hold:
			case <-l.crowd.ctx.Done():
			}
		}
	}
	return stream.Err()
}

// receive records a response, and returns l.hold if the listener is to stop. Before are the notes that had been answered before the call.
func (l *listener) receive(t *testing.T, response *routeguidev1.FollowNotesResponse, before []leftNote, owed *int) (hold chan struct{}, away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if response.GetReset_() {
		l.segments = append(l.segments, segment{})
		*owed = 1
		l.checked = len(before) // Retention may have forgotten them.
	}
	heard := l.segments[len(l.segments)-1]
	for _, note := range response.GetNotes() {
		location, position := locationOf(note.GetLocation()), note.GetPosition()
		text, _, _ := strings.Cut(note.GetText(), " ")
		log := heard[location]
		if log == nil {
			log = &received{}
			heard[location] = log
		}
		if !l.follows(location) {
			t.Errorf("%s gets a note of %v", l.name, location)
		}
		if i, again := slices.BinarySearch(log.positions, position); again && log.texts[i] == text {
			l.repeated++
			continue
		} else if i < len(log.positions) {
			t.Errorf("%s: %s, at %d, comes after %s, at %d", l.name, text, position, log.texts[len(log.texts)-1], log.positions[len(log.positions)-1])
			continue
		}
		log.positions, log.texts = append(log.positions, position), append(log.texts, text)
	}
	if response.GetCurrent() {
		*owed--
		l.currents++
		if *owed < 0 {
			t.Errorf("%s: current is said again without a reset", l.name)
		}
		l.checkCurrent(t, before)
	}
	if len(response.GetCursor()) > 0 {
		l.request.Cursor = response.GetCursor()
	}
	if l.hold != nil && l.currents > 0 && !l.held && len(l.request.GetCursor()) > 0 {
		l.held = true
		return l.hold, l.away
	}
	return nil, false
}

// checkCurrent checks that all notes answered before the call were received. The caller holds l.mu.
func (l *listener) checkCurrent(t *testing.T, before []leftNote) {
	if !l.fromStart {
		return
	}
	heard := l.segments[len(l.segments)-1]
	texts := make(map[leftNote]bool)
	for location, log := range heard {
		for _, text := range log.texts {
			texts[leftNote{location, text}] = true
		}
	}
	for _, note := range before[min(l.checked, len(before)):] {
		if l.follows(note.location) && !texts[note] {
			t.Errorf("%s is told that it is current, and has not received %s", l.name, note.text)
		}
	}
	l.checked = max(l.checked, len(before))
}

// A chatter is a client whose RouteChat follows a location: whenever it ends, it begins another one.
type chatter struct {
	location notes.Location

	mu       sync.Mutex // guards sessions
	sessions [][]string // texts that each RouteChat has received
}

// chat starts a chatter.
func (c *crowd) chat(t *testing.T, location *routeguide.Point) {
	t.Helper()
	chatter := &chatter{location: locationOf(location)}
	c.chatters = append(c.chatters, chatter)
	c.running.Go(func() {
		for server := 0; c.ctx.Err() == nil; server++ {
			chatter.session(c.ctx, t, c.urls[server%len(c.urls)], location)
			backoff()
		}
	})
}

// session is one RouteChat, to its end.
func (c *chatter) session(ctx context.Context, t *testing.T, url string, location *routeguide.Point) {
	client, err := routechat.New(url, connect.WithGRPC())
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	withHeader, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set("Routeguide-Follow", "true")
	stream, err := client.RouteChat(withHeader)
	if err != nil {
		return
	}
	// While the request is open, the end of its context does not end Receive.
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = stream.CloseRequest()
	})
	defer func() {
		if cancel(); !stop() {
			<-closed
		}
		_ = stream.CloseResponse()
	}()
	c.mu.Lock()
	number := len(c.sessions)
	c.sessions = append(c.sessions, nil)
	c.mu.Unlock()
	if stream.Send(&routeguide.RouteNote{Location: location, Message: fmt.Sprintf("chat-%d", number)}) != nil {
		return
	}
	for {
		note, err := stream.Receive()
		if err != nil {
			return
		}
		text, _, _ := strings.Cut(note.GetMessage(), " ")
		c.mu.Lock()
		c.sessions[number] = append(c.sessions[number], text)
		c.mu.Unlock()
	}
}

func (c *chatter) hasAll() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.sessions[len(c.sessions)-1], lastText)
}
