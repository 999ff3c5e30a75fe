package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

type bidiStream = connect.BidiStream[routeguide.RouteNote, routeguide.RouteNote]

// chatStream is a stream of Connect's as a chat needs it. Notes are received as frames and kept as they
// came, and sent as they were kept. Where that cannot be, to JSON clients and where the service is not
// mounted below [wire.NewHandler], they are received and sent one by one by Connect.
type chatStream struct {
	*bidiStream

	ctx    context.Context //nolint:containedctx // It is the context of the stream beside it.
	limits messageLimits
	below  *wire.Stream    // nil if the service is mounted elsewhere
	frames *wire.Envelopes // nil if Connect sends
	begun  bool            // the response's headers are out
}

// messageLimits are those of the messages of a chat. A message that is kept as a frame is within all but the
// timeout.
type messageLimits struct {
	bytes   int           // of one message; 0 is no bound
	timeout time.Duration // for one message; 0 is no bound
	quotas  *quotas
}

// errMessageTimeout is what a client is told of a message that it has not sent to its end.
var errMessageTimeout = connect.NewError(connect.CodeDeadlineExceeded, errors.New("a message was begun, and did not arrive in time"))

// errChatFailed ends the reading of a chat that has failed. The client is told why it has.
var errChatFailed = connect.NewError(connect.CodeAborted, errors.New("the chat has failed"))

func newChatStream(ctx context.Context, stream *bidiStream, limits messageLimits) *chatStream {
	chat := &chatStream{bidiStream: stream, ctx: ctx, limits: limits}
	if below, ok := wire.FromContext(ctx); ok {
		chat.below = below
		below.SetMessageTimeout(limits.timeout, errMessageTimeout)
		if frames, ok := below.Envelopes(); ok {
			chat.frames = frames
		}
	}
	return chat
}

// Receive implements chat.Stream.
func (s *chatStream) Receive() ([]byte, error) {
	if s.frames != nil {
		if encoded, ok := s.frames.Receive(); ok {
			return encoded, nil
		}
	}
	if s.below == nil {
		return s.receive()
	}
	if length, ok := s.below.BeginMessage(); ok && length > shortBytes {
		if s.limits.bytes > 0 && length > s.limits.bytes {
			return nil, connect.NewError(connect.CodeResourceExhausted,
				fmt.Errorf("a message has %d bytes, and may have %d", length, s.limits.bytes))
		}
		peer := s.Peer().Addr
		if err := s.limits.quotas.arriving.Acquire(peer, int64(length)); err != nil {
			return nil, s.limits.quotas.refuse("long messages", err)
		}
		defer s.limits.quotas.arriving.Release(peer, int64(length))
	}
	encoded, err := s.receive()
	s.below.EndMessage()
	return encoded, err
}

// receive has Connect receive a note.
func (s *chatStream) receive() ([]byte, error) {
	note, err := s.bidiStream.Receive()
	if err != nil {
		return nil, err
	}
	return proto.Marshal(note)
}

// Send implements chat.Stream.
func (s *chatStream) Send(encoded []byte) error {
	if s.frames == nil {
		note := &routeguide.RouteNote{}
		if err := proto.Unmarshal(encoded, note); err != nil {
			return fmt.Errorf("%w: a note cannot be parsed: %w", notes.ErrDamaged, err)
		}
		return s.bidiStream.Send(note)
	}
	if !s.begun {
		if err := s.bidiStream.Send(nil); err != nil {
			return err
		}
		s.begun = true
	}
	return s.gone(s.frames.Write(encoded))
}

// Flush implements chat.Stream.
func (s *chatStream) Flush() error {
	if s.frames == nil {
		return nil // Connect flushes after each note.
	}
	return s.gone(s.frames.Flush())
}

// gone returns err, which writing has ended with, as what it is about: the client.
func (s *chatStream) gone(err error) error {
	if err == nil {
		return nil
	}
	if ended := context.Cause(s.ctx); ended != nil {
		return ended
	}
	return connect.NewError(connect.CodeAborted, fmt.Errorf("the client does not take what it is sent: %w", err))
}

// StopReceiving implements chat.Stream.
func (s *chatStream) StopReceiving() {
	stopReading(s.ctx, errChatFailed)
}

// Reset implements chat.Stream.
func (s *chatStream) Reset() {
	if stream, ok := wire.FromContext(s.ctx); ok {
		_ = stream.Reset() // An error says that there is nothing to reset any more.
	}
}
