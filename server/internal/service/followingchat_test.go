package service_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
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
