package service_test

import (
	"context"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/server/internal/notes"
)

// forgetful is a store that forgets each note as soon as it is kept.
type forgetful struct{ notes.Store }

func (f forgetful) Append(ctx context.Context, at notes.Location, note notes.Note, ticket notes.Ticket) {
	position, err := notes.Append(ctx, f.Store, at, note)
	if err == nil {
		_, err = f.Forget(ctx, note.Time+1)
	}
	ticket.Settle(position, err)
}

func TestReplyThatHasLostItsOwnNoteEndsWithAborted(t *testing.T) {
	t.Parallel()
	url, _ := start(t, forgetful{notes.NewMemory()})
	client := dial(t, url)
	stream, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.CloseResponse()
	if err := stream.Send(note(1, "a")); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseRequest(); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Receive()
	checkCode(t, err, connect.CodeAborted)
}
