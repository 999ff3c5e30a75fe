package notes_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

func TestRetainSparesPendingReplies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const keep = 10 * time.Second
		store := memorystore.New()
		add := func() (time int64) {
			note := notes.Note{Time: notes.Now(), Encoded: []byte("a")}
			if _, err := notes.Append(t.Context(), store, notes.Location{}, note); err != nil {
				t.Fatal(err)
			}
			return note.Time
		}
		check := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			got := 0
			for chunk, err := range store.Range(t.Context(), notes.Location{}, notes.Everything) {
				if err != nil {
					t.Fatal(err)
				}
				got += len(chunk)
			}
			if got != want {
				t.Errorf("%s, %d notes are there, want %d", when, got, want)
			}
		}
		var pending atomic.Int64
		add()
		time.Sleep(time.Second)
		pending.Store(add())
		ctx, cancel := context.WithCancel(t.Context())
		retained := make(chan struct{})
		go func() {
			defer close(retained)
			notes.Retain(ctx, store, keep, func(now int64) int64 {
				if oldest := pending.Load(); oldest != 0 {
					return oldest
				}
				return now
			}, slog.New(slog.DiscardHandler))
		}()
		check("at first", 2)
		time.Sleep(3 * keep)
		check("while the reply to the second note is pending", 1)
		pending.Store(0)
		time.Sleep(3 * keep)
		check("afterwards", 0)
		cancel()
		<-retained
	})
}
