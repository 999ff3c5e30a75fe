package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

type bidiStream = connect.BidiStream[routeguide.RouteNote, routeguide.RouteNote]

// chatStream adapts a stream of Connect to [chat.Stream]. It receives and sends notes as envelopes, and keeps
// their encoding unchanged from the client to the store and back. For JSON clients, and without
// [wire.NewHandler] around the service, Connect receives and sends each note instead.
type chatStream struct {
	*bidiStream

	sender sender[routeguide.RouteNote, *routeguide.RouteNote]
	ctx    context.Context //nolint:containedctx // The context of the embedded stream.
	limits messageLimits

	start   time.Time
	traffic chat.Traffic // set at the end, as err is
	err     error
}

// messageLimits are the limits of the messages of a chat. Only the timeout applies to messages received
// as envelopes, which are at most 4 KiB.
type messageLimits struct {
	bytes   int           // size of a message; 0 is no limit
	timeout time.Duration // arrival of a message; 0 is no limit
	quotas  *quotas       // bytes of long messages that have arrived in part
}

// errMessageTimeout is the error for a client whose message has not arrived in full before the timeout.
var errMessageTimeout = connect.NewError(connect.CodeDeadlineExceeded, errors.New("read message: timed out before it arrived in full"))

// errChatFailed stops the reading of a chat that has failed. The client gets the cause of the failure instead.
var errChatFailed = connect.NewError(connect.CodeAborted, errors.New("chat failed"))

func newChatStream(ctx context.Context, stream *bidiStream, limits messageLimits) *chatStream {
	chat := &chatStream{bidiStream: stream, ctx: ctx, limits: limits, start: time.Now()}
	chat.sender = newSender[routeguide.RouteNote, *routeguide.RouteNote](ctx, stream)
	if chat.sender.wireStream != nil {
		chat.sender.wireStream.SetMessageTimeout(limits.timeout, errMessageTimeout)
	}
	return chat
}

// Receive implements chat.Stream. A silent chat waits here: what is not for every note is in functions of its own, so that its stack
// stays small.
func (s *chatStream) Receive() ([]byte, error) {
	if s.sender.envelopes != nil {
		if encoded, ok := s.sender.envelopes.Receive(); ok {
			return encoded, nil
		}
	}
	if s.sender.wireStream == nil {
		return s.receive()
	}
	return s.receiveTimed()
}

// receiveTimed receives a note by Connect, within the message timeout. A long one must have room in the quota.
func (s *chatStream) receiveTimed() ([]byte, error) {
	if length, ok := s.sender.wireStream.BeginMessage(); ok && length > shortBytes {
		if s.limits.bytes > 0 && length > s.limits.bytes {
			return nil, connect.NewError(connect.CodeResourceExhausted,
				fmt.Errorf("message of %d bytes exceeds the limit of %d bytes", length, s.limits.bytes))
		}
		peer := s.Peer().Addr
		if err := s.limits.quotas.arriving.Acquire(peer, int64(length)); err != nil {
			return nil, s.limits.quotas.refuse("long messages", err)
		}
		defer s.limits.quotas.arriving.Release(peer, int64(length))
	}
	encoded, err := s.receive()
	s.sender.wireStream.EndMessage()
	return encoded, err
}

// receive receives a note by Connect.
func (s *chatStream) receive() ([]byte, error) {
	note, err := s.bidiStream.Receive()
	if err != nil {
		return nil, err
	}
	return proto.Marshal(note)
}

// Send implements chat.Stream.
func (s *chatStream) Send(chunk []notes.Note) error {
	var encoded [16][]byte // A replay has many short notes: what a note costs besides its copy counts.
	for part := range slices.Chunk(chunk, len(encoded)) {
		for i := range part {
			encoded[i] = part[i].Encoded
		}
		if err := s.sender.sendAll(encoded[:len(part)]...); err != nil {
			return err
		}
	}
	return nil
}

// Flush implements chat.Stream.
func (s *chatStream) Flush() error { return s.sender.Flush() }

// TrySend implements chat.Stream.
func (s *chatStream) TrySend(encoded []byte) bool {
	return s.sender.envelopes != nil && s.sender.headersSent && s.sender.envelopes.TryWrite(encoded)
}

// Buffered implements chat.Stream.
func (s *chatStream) Buffered() bool {
	return s.sender.envelopes != nil && s.sender.envelopes.Buffered()
}

// StopReceiving implements chat.Stream.
func (s *chatStream) StopReceiving() {
	stopReading(s.ctx, errChatFailed)
}

// Reset implements chat.Stream.
func (s *chatStream) Reset() {
	if stream, ok := wire.FromContext(s.ctx); ok {
		_ = stream.Reset() // It fails if the connection has ended: then there is nothing to reset.
	}
}
