package wire

import (
	"net/http"
	"testing"
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
