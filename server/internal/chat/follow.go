package chat

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"

	"example.com/routeguide/server/internal/live"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/wire"
)

// Following is what a chat that follows needs beyond others.
type Following struct {
	Hub *live.Hub
	// Output is the queue of the response, if envelopes of notes may be written to it, and else nil.
	Output wire.Queue
	// Until is when the chat ends after its client has half-closed, with the error Cause. The zero time is never.
	Until time.Time
	Cause error
}

// ServeFollowing is [Server.Serve] for a chat that follows: its first reply of a location brings the log, and from then on it is
// sent every note of that log once, its own and those of others. After the client has half-closed, it goes on until ctx ends, until
// StopFollowing, or for ever; if it follows nothing, it ends.
func (s *Server) ServeFollowing(ctx context.Context, stream Stream, limiter *rate.Limiter, following Following) (Traffic, error) {
	chat := &chat{ctx: ctx, server: s, stream: stream, limiter: limiter}
	chat.changed.L = &chat.mu
	var err error
	chat.live, err = following.Hub.OpenChat(ctx, live.ChatOptions{
		Output: following.Output,
		Wake:   chat.wake,
		Flush:  chat.flush,
		Send: func(list []notes.Note) error {
			chat.sendNotes(list, nil)
			return chat.replyErr
		},
	})
	if err != nil {
		return Traffic{}, err
	}
	s.add(chat)
	err = chat.receive()
	if err == nil && chat.live.Follows() {
		err = chat.awaitStop(following)
	}
	err = chat.concludeFollowing(err)
	sent := chat.live.Delivered()
	s.counts.sent.Add(sent)
	return Traffic{In: chat.received, Out: chat.sent + sent}, err
}

// StopFollowing ends the chats that follow and have half-closed, with cause, once they were sent what was kept before, and those that
// begin to follow later.
func (s *Server) StopFollowing(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = cause
	for chat := range s.chats {
		chat.stop(cause)
	}
}

// stop ends awaitStop.
func (c *chat) stop(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopCalled == nil {
		c.stopCalled = cause
		c.changed.Broadcast()
	}
}

// awaitStop waits until a chat that follows and has half-closed has to end, and returns the cause.
func (c *chat) awaitStop(following Following) error {
	if !following.Until.IsZero() {
		timer := time.AfterFunc(time.Until(following.Until), func() { c.stop(following.Cause) })
		defer timer.Stop()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitWhile(func() bool { return c.stopCalled == nil && c.failure == nil })
	return c.stopCalled
}

// wake starts the goroutine that sends, unless it runs. It implements [live.ChatOptions].
func (c *chat) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken = true
	if c.failure == nil && !c.sending {
		c.sending = true
		go c.sendFollowing()
	}
}

// sendFollowing sends what is due, and returns when nothing is left. concludeFollowing joins it.
func (c *chat) sendFollowing() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.failure == nil {
		oldest, settled := c.pending.oldest()
		// What was answered before the note that failed is sent first.
		failed := c.appendErr != nil && c.appendErrNumber == c.pending.first
		if !settled && !failed && !c.woken {
			break
		}
		c.woken = false
		c.mu.Unlock()
		if settled {
			c.live.Reply(oldest.location, oldest.through, c.server.options.History)
		}
		err := guarded(func() error { return c.live.Work(c.ctx) })
		c.mu.Lock()
		switch {
		case err != nil:
			c.fail(err)
		case failed:
			c.fail(c.appendErr)
		case settled:
			c.pop()
		}
	}
	c.sending = false
	c.changed.Broadcast()
}

// concludeFollowing sends what was kept so far, after the receiver has returned err, and returns the error that the chat ends with.
func (c *chat) concludeFollowing(err error) error {
	if _, panicked := errors.AsType[*PanicError](err); !panicked && c.ctx.Err() == nil {
		c.mu.Lock()
		c.waitWhile(func() bool { return c.pending.count > 0 && c.failure == nil })
		c.mu.Unlock()
		c.live.CatchUp()
		c.wake()
		c.mu.Lock()
		c.waitWhile(func() bool { return c.sending && c.failure == nil })
		c.mu.Unlock()
	}
	c.live.Close() // It wakes up nobody any more.
	return c.conclude(err)
}
