package chat_test

import (
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
)

// written is a client that writes notes and takes what comes.
type written struct {
	notes     int // that are still to be written
	locations int
	note      []byte
}

func newWritten(tb testing.TB, count, locations int) *written {
	tb.Helper()
	note, err := proto.Marshal(&routeguide.RouteNote{
		Location: &routeguide.Point{Latitude: 89_0000000, Longitude: 179_0000000},
		Message:  strings.Repeat("n", 29),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return &written{notes: count, locations: locations, note: note}
}

func (w *written) Receive() ([]byte, error) {
	if w.notes == 0 {
		return nil, io.EOF
	}
	w.notes--
	// The longitude, in place: the last 5 bytes of the location.
	location := 2 + int(w.note[1])
	protowire.AppendVarint(w.note[:location-5], 1<<28|uint64(w.notes%w.locations))
	return w.note, nil
}

func (w *written) Send([]byte) error { return nil }
func (w *written) Flush() error      { return nil }
func (w *written) StopReceiving()    {}
func (w *written) Reset()            {}

func BenchmarkNote(b *testing.B) {
	for _, bench := range []struct {
		name      string
		locations int
	}{
		{"at a place of its own", 1 << 27},
		{"at one of 1000 places", 1000},
	} {
		b.Run(bench.name, func(b *testing.B) {
			host := chat.NewServer(chat.Options{Store: notes.NewMemory(), History: 1})
			b.ReportAllocs()
			if _, err := host.Serve(b.Context(), newWritten(b, b.N, bench.locations), nil); err != nil {
				b.Fatal(err)
			}
		})
	}
}
