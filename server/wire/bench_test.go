package wire

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"golang.org/x/net/http2"
)

// discarded is a response that drops its body.
type discarded struct{ http.ResponseWriter }

func (discarded) Write(p []byte) (int, error) { return len(p), nil }
func (discarded) Flush()                      {}
func (discarded) FlushError() error           { return nil }

// BenchmarkEnvelopesWriteDirect writes one note of a replay per operation.
func BenchmarkEnvelopesWriteDirect(b *testing.B) {
	stream := &Stream{response: discarded{}, controller: http.NewResponseController(discarded{}), binary: true}
	envelopes, _ := stream.Envelopes()
	note := make([]byte, 45)
	b.ReportAllocs()
	for range b.N {
		if err := envelopes.Write(note); err != nil {
			b.Fatal(err)
		}
	}
	if err := envelopes.Flush(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkIncoming reads one DATA frame with a note per operation. 16 streams take turns.
func BenchmarkIncoming(b *testing.B) {
	var sent bytes.Buffer
	sent.WriteString(preface)
	framer := http2.NewFramer(&sent, nil)
	if err := framer.WriteSettings(); err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		if err := framer.WriteData(uint32(2*(i%16)+1), false, make([]byte, 50)); err != nil {
			b.Fatal(err)
		}
	}
	in := newIncoming(&sent, nil, nil)
	buffer := make([]byte, 16<<10)
	b.ReportAllocs()
	b.ResetTimer()
	for {
		if _, err := in.Read(buffer); err == io.EOF { //nolint:errorlint // bytes.Buffer returns io.EOF unwrapped.
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}
