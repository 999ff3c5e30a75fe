package service

import (
	"compress/gzip"
	"errors"
	"io"

	"connectrpc.com/connect"
)

var errTooLarge = errors.New("decompressed message exceeds the size limit")

// withGzip is Connect's gzip with a limit on the decompressed size, in bytes; 0 is no limit. Connect alone
// decompresses the whole message to report its length: a few kilobytes can become gigabytes.
func withGzip(limit int) connect.HandlerOption {
	return connect.WithCompression("gzip",
		func() connect.Decompressor { return &limitedGzip{limit: int64(limit)} },
		func() connect.Compressor { return gzip.NewWriter(io.Discard) },
	)
}

// limitedGzip fails once it has decompressed more than limit bytes.
type limitedGzip struct {
	gzip.Reader

	limit, decompressed int64 // bytes
}

func (g *limitedGzip) Reset(from io.Reader) error {
	g.decompressed = 0
	return g.Reader.Reset(from)
}

func (g *limitedGzip) Read(p []byte) (int, error) {
	if g.limit > 0 && g.decompressed > g.limit {
		return 0, errTooLarge
	}
	n, err := g.Reader.Read(p)
	g.decompressed += int64(n)
	return n, err
}
