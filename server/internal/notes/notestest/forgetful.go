package notestest

import (
	"context"

	"example.com/routeguide/server/internal/notes"
)

// Forgetful is a store that deletes each note before its ticket is settled, as retention may before the reply is read.
type Forgetful struct{ notes.Store }

// Append implements [notes.Store].
func (f Forgetful) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	receipt, err := notes.Append(ctx, f.Store, location, note)
	if err == nil {
		_, err = f.Forget(ctx, note.Time+1)
	}
	receipt.Alone = false // Its reply must be read.
	ticket.Settle(receipt, err)
}
