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
	"example.com/routeguide/server/internal/notes/memorystore"
)

// source is a stream with a number of notes to receive. It discards the replies.
type source struct {
	notes     int    // notes left to receive
	locations int    // distinct locations, in turn
	note      []byte // encoded; changed in place
}

func newSource(tb testing.TB, count, locations int) *source {
	tb.Helper()
	note, err := proto.Marshal(&routeguide.RouteNote{
		Location: &routeguide.Point{Latitude: 89_0000000, Longitude: 179_0000000},
		Message:  strings.Repeat("n", 29),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return &source{notes: count, locations: locations, note: note}
}

func (s *source) Receive() ([]byte, error) {
	if s.notes == 0 {
		return nil, io.EOF
	}
	s.notes--
	// Overwrite the longitude: the last 5 bytes of the location.
	location := 2 + int(s.note[1])
	protowire.AppendVarint(s.note[:location-5], 1<<28|uint64(s.notes%s.locations))
	return s.note, nil
}

func (s *source) Send([]notes.Note) error { return nil }
func (s *source) Flush() error            { return nil }
func (s *source) TrySend([]byte) bool     { return false }
func (s *source) Buffered() bool          { return s.notes > 0 }
func (s *source) StopReceiving()          {}
func (s *source) Reset()                  {}

func BenchmarkNote(b *testing.B) {
	for _, bench := range []struct {
		name      string
		locations int
	}{
		{"distinct locations", 1 << 27},
		{"1000 locations", 1000},
	} {
		b.Run(bench.name, func(b *testing.B) {
			server := chat.NewServer(chat.Options{Store: memorystore.New(), History: 1})
			b.ReportAllocs()
			if _, err := server.Serve(b.Context(), newSource(b, b.N, bench.locations), nil); err != nil {
				b.Fatal(err)
			}
		})
	}
}
