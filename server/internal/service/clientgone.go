package service

import (
	"context"

	"connectrpc.com/connect"

	"example.com/routeguide/server/wire"
)

// clientGone returns an error with the code CANCELED if the response can no longer reach the client. A proxy
// that ends a call for its client may send END_STREAM before RST_STREAM: the handler then sees a regular end of
// the request.
func clientGone(ctx context.Context) error {
	if stream, ok := wire.FromContext(ctx); ok {
		return canceled(stream.Gone())
	}
	return nil
}

// canceled returns an error of package wire with the code CANCELED, or nil for nil.
func canceled(err error) error {
	if err == nil {
		return nil
	}
	return connect.NewError(connect.CodeCanceled, err)
}
