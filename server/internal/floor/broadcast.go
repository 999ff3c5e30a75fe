package main

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/wire"
)

// broadcaster sends one message to many streams: each open ListFeatures gets the feature of each GetFeature. It is encoded
// once, and queued on the streams by a [wire.Batch], or, where that cannot be, written by the goroutine of each call.
type broadcaster struct {
	routeguideconnect.UnimplementedRouteGuideHandler

	mu        sync.Mutex // guards the fields below
	followers map[*follower]struct{}
	batch     wire.Batch
}

type follower struct {
	stream *wire.Stream
	missed chan []byte
}

func newBroadcaster() http.Handler {
	_, handler := routeguideconnect.NewRouteGuideHandler(&broadcaster{followers: make(map[*follower]struct{})})
	return wire.NewHandler(handler)
}

// ListFeatures sends headers once it follows.
func (b *broadcaster) ListFeatures(ctx context.Context, _ *routeguide.Rectangle, stream *connect.ServerStream[routeguide.Feature]) error {
	wired, ok := wire.FromContext(ctx)
	if !ok {
		return errors.New("no wire stream in the context")
	}
	envelopes, ok := wired.Envelopes()
	if !ok {
		return connect.NewError(connect.CodeUnimplemented, errors.New("unsupported codec: binary messages only"))
	}
	follower := &follower{wired, make(chan []byte, 1)}
	b.mu.Lock()
	b.followers[follower] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.followers, follower)
		b.mu.Unlock()
	}()
	if err := stream.Send(nil); err != nil {
		return err
	}
	for {
		select {
		case feature := <-follower.missed:
			if err := errors.Join(envelopes.Write(feature), envelopes.Flush()); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// GetFeature broadcasts a feature at a point. It skips a follower that has not taken the one before.
func (b *broadcaster) GetFeature(_ context.Context, point *routeguide.Point) (*routeguide.Feature, error) {
	feature := &routeguide.Feature{Name: "a name as long as a note's text", Location: point}
	encoded, err := proto.Marshal(feature)
	if err != nil {
		return nil, err
	}
	envelope := wire.AppendEnvelope(nil, encoded)
	b.mu.Lock()
	defer b.mu.Unlock()
	for follower := range b.followers {
		if b.batch.TryWrite(follower.stream.Queue(), envelope) {
			continue
		}
		select {
		case follower.missed <- encoded:
		default:
		}
	}
	b.batch.Flush()
	return feature, nil
}
