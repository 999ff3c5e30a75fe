package validate_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/validate"
)

func encode(tb testing.TB, note *routeguide.RouteNote) []byte {
	tb.Helper()
	encoded, err := proto.Marshal(note)
	if err != nil {
		tb.Fatal(err)
	}
	return encoded
}

func TestEncodedNoteAcceptsCanonicalEncoding(t *testing.T) {
	t.Parallel()
	for _, note := range []*routeguide.RouteNote{
		{Location: point(0, 0)},
		{Location: point(0, 1)},
		{Location: point(-1, 0), Message: "é"},
		{Location: point(validate.MaxLatitude, -validate.MaxLongitude), Message: "note"},
	} {
		if text, ok := validate.EncodedText(encode(t, note)); !ok || string(text) != note.GetMessage() {
			t.Errorf("%v has the text %q, %v", note, text, ok)
		}
		latitude, longitude, ok := validate.EncodedNote(encode(t, note))
		if location := note.GetLocation(); !ok || latitude != location.GetLatitude() || longitude != location.GetLongitude() {
			t.Errorf("%v is at %d, %d, %v", note, latitude, longitude, ok)
		}
	}
}

func TestEncodedNoteDoesNotAllocate(t *testing.T) { //nolint:paralleltest // Allocations are counted.
	encoded := encode(t, &routeguide.RouteNote{Location: point(-1, 1), Message: "note"})
	if allocations := testing.AllocsPerRun(100, func() { validate.EncodedNote(encoded) }); allocations > 0 {
		t.Errorf("%v allocations, want 0", allocations)
	}
}

// Where EncodedNote returns true, decoding must agree: the same location, valid, and no unknown fields.
func FuzzEncodedNote(f *testing.F) {
	ordinary := encode(f, &routeguide.RouteNote{Location: point(123, -456), Message: "note"})
	for _, seed := range [][]byte{
		nil,
		ordinary,
		slices.Concat(ordinary, ordinary),
		slices.Concat(ordinary, []byte{0x18, 1}),
		ordinary[:len(ordinary)-1],
		encode(f, &routeguide.RouteNote{Message: "no location"}),
		encode(f, &routeguide.RouteNote{Location: point(validate.MaxLatitude+1, 0)}),
		encode(f, &routeguide.RouteNote{Location: point(0, -validate.MaxLongitude-1)}),
		encode(f, &routeguide.RouteNote{Location: point(-validate.MaxLatitude-1, 0)}),
		encode(f, &routeguide.RouteNote{Location: point(0, validate.MaxLongitude+1)}),
		{0x0a, 0, 0x12, 1, 0xff},
		{0x0a, 3, 0x10, 1, 0x08},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		latitude, longitude, ok := validate.EncodedNote(encoded)
		if !ok {
			return
		}
		var note routeguide.RouteNote
		if err := proto.Unmarshal(encoded, &note); err != nil {
			t.Fatal(err)
		}
		if err := validate.Note(&note); err != nil {
			t.Error(err)
		}
		if location := note.GetLocation(); latitude != location.GetLatitude() || longitude != location.GetLongitude() {
			t.Errorf("got %d, %d, want %v", latitude, longitude, location)
		}
		if text, ok := validate.EncodedText(encoded); !ok || string(text) != note.GetMessage() {
			t.Errorf("the text is %q, %v, want %q", text, ok, note.GetMessage())
		}
		if unknown := note.ProtoReflect().GetUnknown(); len(unknown) > 0 {
			t.Errorf("%x is unknown", unknown)
		}
	})
}
