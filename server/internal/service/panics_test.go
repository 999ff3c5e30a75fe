package service_test

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// broken is a store that panics on reads.
type broken struct{ notes.Store }

func (broken) Range(context.Context, notes.Location, notes.Span) iter.Seq2[[]notes.Note, error] {
	panic("broken")
}

// Append leaves the store a first note, so that the reply to the next one must be read.
func (b broken) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	if _, err := notes.Append(ctx, b.Store, location, note); err != nil {
		ticket.Settle(notes.Receipt{}, err)
		return
	}
	b.Store.Append(ctx, location, note, ticket)
}

// careless is a store that panics on writes.
type careless struct{ notes.Store }

func (careless) Append(context.Context, notes.Location, notes.Note, notes.Ticket) {
	panic("careless")
}

// A panic ends its call with INTERNAL, without details. It is counted and logged, and the server goes on.
func TestPanicEndsOnlyItsCall(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]notes.Store{"broken": broken{memorystore.New()}, "careless": careless{memorystore.New()}} {
		var log bytes.Buffer
		options := bounded()
		options.Chats.Store, options.Logger = store, slog.New(slog.NewTextHandler(&log, nil))
		url, running := startWith(t, options)
		client := dial(t, url)
		_, err := chatOf(t.Context(), client, note(1, "secret"))
		checkCode(t, err, connect.CodeInternal)
		if strings.Contains(err.Error(), name) {
			t.Errorf("the client gets %v", err)
		}
		if _, err := client.GetFeature(t.Context(), point(1, 1)); err != nil {
			t.Errorf("after a panic: %v", err)
		}
		running.Drain()
		<-running.Drained()
		if text := log.String(); running.Panics() != 1 || !strings.Contains(text, name) || !strings.Contains(text, "panics_test.go") || strings.Contains(text, "secret") {
			t.Errorf("%d panics, and in the log:\n%s", running.Panics(), text)
		}
	}
}
