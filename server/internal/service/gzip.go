package service

import (
	"compress/gzip"
	"errors"
	"io"

	"connectrpc.com/connect"
)

var errUnpacked = errors.New("it is longer when it is unpacked")

// withGzip is Connect's gzip, but that it unpacks no more of a message than what is allowed. Connect by itself
// unpacks all of it, to say how long it is: of a few kilobytes that can be gigabytes.
func withGzip(most int) connect.HandlerOption {
	return connect.WithCompression("gzip",
		func() connect.Decompressor { return &limitedGzip{most: int64(most)} },
		func() connect.Compressor { return gzip.NewWriter(io.Discard) },
	)
}

// limitedGzip fails once it has unpacked more than what is allowed.
type limitedGzip struct {
	gzip.Reader

	most, unpacked int64
}

func (g *limitedGzip) Reset(from io.Reader) error {
	g.unpacked = 0
	return g.Reader.Reset(from)
}

func (g *limitedGzip) Read(p []byte) (int, error) {
	if g.most > 0 && g.unpacked > g.most {
		return 0, errUnpacked
	}
	n, err := g.Reader.Read(p)
	g.unpacked += int64(n)
	return n, err
}
