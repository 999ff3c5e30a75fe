package service

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

// sender sends encoded messages on a stream of Connect, as envelopes. For JSON clients, and without [wire.NewHandler] around the service,
// Connect sends each message instead.
type sender[Message any, Pointer interface {
	*Message
	proto.Message
}] struct {
	stream interface {
		Send(message *Message) error
	}
	ctx         context.Context //nolint:containedctx // The context of the stream.
	wireStream  *wire.Stream    // nil without wire.NewHandler
	envelopes   *wire.Envelopes // nil if Connect sends
	headersSent bool            // response headers
}

func newSender[Message any, Pointer interface {
	*Message
	proto.Message
}](ctx context.Context, stream interface {
	Send(message *Message) error
}) sender[Message, Pointer] {
	sender := sender[Message, Pointer]{ctx: ctx, stream: stream}
	if wireStream, ok := wire.FromContext(ctx); ok {
		sender.wireStream = wireStream
		if envelopes, ok := wireStream.Envelopes(); ok {
			sender.envelopes = envelopes
		}
	}
	return sender
}

// Start sends the response headers.
func (s *sender[Message, Pointer]) Start() error {
	if err := s.stream.Send(nil); err != nil {
		return stalledOr(err)
	}
	s.headersSent = true
	return nil
}

// Send sends an encoded message. It may buffer it until Flush.
func (s *sender[Message, Pointer]) Send(encoded []byte) error { return s.sendAll(encoded) }

// sendAll is Send for several messages.
func (s *sender[Message, Pointer]) sendAll(encoded ...[]byte) error {
	if s.envelopes == nil {
		return s.sendByConnect(encoded)
	}
	if !s.headersSent {
		if err := s.Start(); err != nil {
			return err
		}
	}
	return s.writeError(s.envelopes.Write(encoded...))
}

func (s *sender[Message, Pointer]) sendByConnect(encoded [][]byte) error {
	for _, each := range encoded {
		message := Pointer(new(Message))
		if err := proto.Unmarshal(each, message); err != nil {
			return fmt.Errorf("%w: parse message: %w", notes.ErrDamaged, err)
		}
		if err := s.stream.Send(message); err != nil {
			return stalledOr(err)
		}
	}
	return nil
}

// Flush sends what Send has buffered.
func (s *sender[Message, Pointer]) Flush() error {
	if s.envelopes == nil {
		return nil // Connect flushes after each message.
	}
	return s.writeError(s.envelopes.Flush())
}

// Queue returns the queue of the response if envelopes may be written to it, and else nil.
func (s *sender[Message, Pointer]) Queue() wire.Queue {
	if s.envelopes == nil {
		return nil
	}
	return s.wireStream.Queue()
}

// stalledOr returns [wire.ErrStalled] if that is why Connect could not send, and otherwise err.
func stalledOr(err error) error {
	if errors.Is(err, wire.ErrStalled) {
		return wire.ErrStalled
	}
	return err
}

// writeError returns the error for a write that failed with err: that of a slow consumer, the cause of the call's end if it has ended, and
// otherwise ABORTED.
func (s *sender[Message, Pointer]) writeError(err error) error {
	if err == nil || errors.Is(err, wire.ErrStalled) {
		return stalledOr(err)
	}
	if ended := context.Cause(s.ctx); ended != nil {
		return ended
	}
	return connect.NewError(connect.CodeAborted, fmt.Errorf("write to client: %w", err))
}
