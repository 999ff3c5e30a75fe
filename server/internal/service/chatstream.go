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

// chatStream adapts a stream of Connect to [chat.Stream]. It receives and sends notes as envelopes, and keeps
// their encoding unchanged from the client to the store and back. For JSON clients, and without
// [wire.NewHandler] around the service, Connect receives and sends each note instead.
type chatStream struct {
	*bidiStream

	ctx         context.Context //nolint:containedctx // The context of the embedded stream.
	limits      messageLimits
	wireStream  *wire.Stream    // nil without wire.NewHandler
	envelopes   *wire.Envelopes // nil if Connect receives and sends
	headersSent bool            // response headers
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
	chat := &chatStream{bidiStream: stream, ctx: ctx, limits: limits}
	if wireStream, ok := wire.FromContext(ctx); ok {
		chat.wireStream = wireStream
		wireStream.SetMessageTimeout(limits.timeout, errMessageTimeout)
		if envelopes, ok := wireStream.Envelopes(); ok {
			chat.envelopes = envelopes
		}
	}
	return chat
}

// Receive implements chat.Stream.
func (s *chatStream) Receive() ([]byte, error) {
	if s.envelopes != nil {
		if encoded, ok := s.envelopes.Receive(); ok {
			return encoded, nil
		}
	}
	if s.wireStream == nil {
		return s.receive()
	}
	if length, ok := s.wireStream.BeginMessage(); ok && length > shortBytes {
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
	s.wireStream.EndMessage()
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
func (s *chatStream) Send(encoded []byte) error {
	if s.envelopes == nil {
		note := &routeguide.RouteNote{}
		if err := proto.Unmarshal(encoded, note); err != nil {
			return fmt.Errorf("%w: parse note: %w", notes.ErrDamaged, err)
		}
		return s.bidiStream.Send(note)
	}
	if !s.headersSent {
		if err := s.bidiStream.Send(nil); err != nil {
			return err
		}
		s.headersSent = true
	}
	return s.writeError(s.envelopes.Write(encoded))
}

// Flush implements chat.Stream.
func (s *chatStream) Flush() error {
	if s.envelopes == nil {
		return nil // Connect flushes after each note.
	}
	return s.writeError(s.envelopes.Flush())
}

// writeError returns the error for a write that failed with err: the cause of the call's end if it has ended, and
// otherwise ABORTED.
func (s *chatStream) writeError(err error) error {
	if err == nil {
		return nil
	}
	if ended := context.Cause(s.ctx); ended != nil {
		return ended
	}
	return connect.NewError(connect.CodeAborted, fmt.Errorf("write to client: %w", err))
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
