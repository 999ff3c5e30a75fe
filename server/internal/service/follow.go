package service

import (
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/validate"
)

// followHeader is the request header with which a RouteChat follows, and followField its name in errors.
const (
	followHeader = "Routeguide-Follow"
	followField  = "routeguide-follow"
)

const (
	// The notes of each location that FollowNotes begins with, unless the client asks for another number.
	newestOfLocation  = 20
	newestOfRectangle = 1
	// maxNewest is the largest number that it may ask for.
	maxNewest = 1000
)

// follows returns whether a chat follows, by its request header.
func follows(stream *bidiStream) (bool, error) {
	values := stream.RequestHeader().Values(followHeader)
	switch {
	case len(values) == 0 || slices.Equal(values, []string{"false"}):
		return false, nil
	case slices.Equal(values, []string{"true"}):
		stream.ResponseHeader().Set(followHeader, "true")
		return true, nil
	default:
		return false, &validate.Error{Field: followField, Rule: "the request header must be true or false"}
	}
}

// serveChat serves a chat, which follows or not.
func (h *handler) serveChat(ctx context.Context, stream *chatStream) (chat.Traffic, error) {
	limiter := h.rates.For(stream.Peer().Addr)
	following, err := follows(stream.bidiStream)
	if err != nil {
		return chat.Traffic{}, err
	}
	if !following {
		return h.chats.Serve(ctx, stream, limiter)
	}
	return h.serveFollowing(ctx, stream, limiter)
}

// serveFollowing serves a chat that follows. It is not a part of serveChat, so that the stack of a silent chat stays small.
func (h *handler) serveFollowing(ctx context.Context, stream *chatStream, limiter *rate.Limiter) (chat.Traffic, error) {
	// The client may wait for the headers before it sends its first note.
	if err := stream.sender.Start(); err != nil {
		return chat.Traffic{}, err
	}
	options := chat.Following{Hub: h.hub, Output: stream.sender.Queue(), Cause: errMaxAge}
	if h.maxChatAge > 0 {
		options.Until = stream.start.Add(h.maxChatAge)
	}
	return h.chats.ServeFollowing(ctx, stream, limiter, options)
}

// FollowNotes implements the RPC.
func (h *handler) FollowNotes(ctx context.Context, request *routeguidev1.FollowNotesRequest, stream *connect.ServerStream[routeguidev1.FollowNotesResponse]) error {
	follow, err := followRequest(request)
	if err != nil {
		return coded(ctx, err)
	}
	// nginx then passes notes on as they come, and backpressure back, whatever its configuration says of buffers:
	// https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering
	stream.ResponseHeader().Set("X-Accel-Buffering", "no")
	sender := newSender[routeguidev1.FollowNotesResponse, *routeguidev1.FollowNotesResponse](ctx, stream)
	start := time.Now()
	err = h.hub.FollowNotes(ctx, follow, &sender)
	if isStoreError(ctx, err) {
		h.failed.Add(1)
		h.logger.WarnContext(ctx, "follower ended", "peer", stream.Conn().Peer().Addr, "duration", time.Since(start), "code", code(ctx, err), "err", err)
	}
	return coded(ctx, err)
}

// followRequest returns a request in the terms of package live, or a [validate.Error].
func followRequest(request *routeguidev1.FollowNotesRequest) (live.Request, error) {
	follow := live.Request{Cursor: request.GetCursor()}
	switch filter := request.GetFilter().(type) {
	case *routeguidev1.FollowNotesRequest_Location:
		if err := validate.Point("location", filter.Location); err != nil {
			return follow, err
		}
		location := locationOf(filter.Location)
		follow.Filter.Location, follow.Newest = &location, newestOfLocation
	case *routeguidev1.FollowNotesRequest_Rectangle:
		if err := validate.Rectangle("rectangle", filter.Rectangle); err != nil {
			return follow, err
		}
		follow.Filter.Rectangle, follow.Newest = live.Rectangle(filter.Rectangle), newestOfRectangle
	default:
		return follow, &validate.Error{Field: "filter", Rule: "must be set: a location or a rectangle"}
	}
	if request.Newest != nil {
		if newest := request.GetNewest(); newest < 0 || newest > maxNewest {
			return follow, &validate.Error{Field: "newest", Rule: fmt.Sprintf("%d is not between 0 and %d", newest, maxNewest)}
		}
		follow.Newest = int(request.GetNewest())
	}
	return follow, nil
}

func locationOf(point *routeguide.Point) notes.Location {
	return notes.Location{Latitude: point.GetLatitude(), Longitude: point.GetLongitude()}
}
