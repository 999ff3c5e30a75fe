package main

import (
	"compress/zlib"
	"io"

	"connectrpc.com/connect"
	"github.com/andybalholm/brotli"
	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
)

// compressions are the compressions of the suite that our server does not offer. They multiply its cases.
func compressions() connect.HandlerOption {
	return connect.WithHandlerOptions(
		withCompression("br", func() connect.Compressor { return brotli.NewWriter(nil) },
			func(from io.Reader) (io.Reader, error) { return brotli.NewReader(from), nil }),
		withCompression("deflate", func() connect.Compressor { return zlib.NewWriter(nil) },
			func(from io.Reader) (io.Reader, error) { return zlib.NewReader(from) }),
		withCompression("snappy", func() connect.Compressor { return snappy.NewBufferedWriter(nil) },
			func(from io.Reader) (io.Reader, error) { return snappy.NewReader(from), nil }),
		withCompression("zstd", newZstd,
			// Without concurrency it has no goroutines to stop.
			func(from io.Reader) (io.Reader, error) { return zstd.NewReader(from, zstd.WithDecoderConcurrency(1)) }),
	)
}

func newZstd() connect.Compressor {
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err) // It checks options only.
	}
	return encoder
}

func withCompression(name string, compressor func() connect.Compressor, open func(io.Reader) (io.Reader, error)) connect.HandlerOption {
	return connect.WithCompression(name, func() connect.Decompressor { return &decompressor{open: open} }, compressor)
}

// decompressor is a [connect.Decompressor] that opens a reader for each message, because readers are reset and closed in
// different ways.
type decompressor struct {
	io.Reader

	open func(io.Reader) (io.Reader, error)
}

func (d *decompressor) Reset(from io.Reader) (err error) {
	d.Reader, err = d.open(from)
	return err
}

func (*decompressor) Close() error { return nil }
