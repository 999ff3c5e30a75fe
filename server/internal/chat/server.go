package chat

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"example.com/routeguide/server/internal/notes"
)

// DefaultMaxPending is how many notes of one chat may wait for their replies, unless [Options] say otherwise.
const DefaultMaxPending = 1 << 18

// Options are what a [Server] needs to know. All but Store may be left out; 0 is no bound, unless it says
// otherwise.
type Options struct {
	// Store keeps the notes.
	Store notes.Store
	// History is how many notes a reply has at most, the newest.
	History int
	// MaxText is how many bytes the text of a note may have. All of the encoded note may be 1 KiB longer.
	MaxText int
	// MaxPending is how many notes of a chat may wait for their replies; 0 is [DefaultMaxPending]. A
	// client that has written so many without reading is not read from until it does.
	MaxPending int
	// MaxPendingInAll is how many notes of all chats may wait for their replies, which take 24 bytes
	// each. Beyond it, the chats that have the most are ended.
	MaxPendingInAll int
	// StallTimeout is how long a client may take to take 32 KiB that wait for it, or less if less do. A
	// chat whose client takes longer is reset. One that is merely silent is not.
	StallTimeout time.Duration
	// Now is the machine's clock, in nanoseconds since 1970; without it, [notes.Now]. A note gets its time,
	// or the time of the note before, from any chat of the host, if that is later.
	Now func() int64
}

// A Server holds the chats of a server. Its methods may be called concurrently.
type Server struct {
	options Options
	watch   *watchdog // nil if nothing is watched
	hurried chan struct{}
	clock   clock
	counts  counts

	mu    sync.Mutex // guards chats
	chats map[*chat]struct{}
}

// NewServer returns a host whose chats keep notes in a store. It must be closed.
func NewServer(options Options) *Server {
	if options.MaxPending == 0 {
		options.MaxPending = DefaultMaxPending
	}
	if options.Now == nil {
		options.Now = notes.Now
	}
	host := &Server{options: options, clock: clock{machine: options.Now}, hurried: make(chan struct{}), chats: make(map[*chat]struct{})}
	if options.StallTimeout > 0 {
		host.watch = startWatch(host)
	}
	return host
}

// LiftRateLimit lets no chat wait for its pace any more: the server is about to end. It must be called once at most.
func (h *Server) LiftRateLimit() {
	close(h.hurried)
}

// Close ends what the host does by itself, once there are no more chats.
func (h *Server) Close() {
	if h.watch != nil {
		h.watch.close()
	}
}

// OldestPending returns the time of the oldest note that still waits for its reply, or now, if that is
// older. Notes from then on must not be forgotten: a reply ends with the note that asked for it.
func (h *Server) OldestPending(now int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	oldest := now
	for chat := range h.chats {
		oldest = min(oldest, chat.oldestPending(now))
	}
	return oldest
}

// Traffic is what went through a chat.
type Traffic struct {
	// In is how many notes the client left, and Out how many it was sent.
	In, Out int64
}

// Serve holds one chat and returns when it is over: with nil if the client has closed its side and
// has all its replies. Otherwise with the reason: the error of a note that breaks a rule, of the
// store, or of the stream. Notes before the one that the error is about are kept, and their
// replies sent, as long as the stream takes them. Unless it is nil, pace bounds how fast notes are taken in.
//
// The two directions are independent. The calling goroutine receives and appends; a second one
// exists only while there are replies that the store has settled, and sends them in order.
func (h *Server) Serve(ctx context.Context, stream Stream, pace *rate.Limiter) (Traffic, error) {
	chat := &chat{ctx: ctx, host: h, stream: stream, pace: pace}
	chat.changed.L = &chat.mu
	chat.sendChunk = chat.sendNotes
	h.add(chat)
	defer h.remove(chat)
	err := guarded(chat.receive)
	if _, panicked := errors.AsType[*PanicError](err); panicked {
		chat.end(err) // Who knows what of its last note became.
	}
	if failure := chat.finish(); failure != nil {
		err = failure
	}
	return Traffic{In: chat.in, Out: chat.out}, err
}

func (h *Server) add(chat *chat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.chats[chat] = struct{}{}
}

func (h *Server) remove(chat *chat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.chats, chat)
}

// shedAtLeast is the part of MaxPendingInAll that is free after shed: who fills it again must do so with that many
// notes, so that looking at all chats is little work for each.
const shedAtLeast = 64

// shed ends the chats that have the most replies pending, until there is room again.
func (h *Server) shed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	most := int64(h.options.MaxPendingInAll)
	if h.counts.pending.Load() <= most {
		return // Other chats were ended meanwhile.
	}
	type load struct {
		chat  *chat
		count int
	}
	var loads []load
	for chat := range h.chats {
		if count := chat.countPending(); count > 0 {
			loads = append(loads, load{chat, count})
		}
	}
	slices.SortFunc(loads, func(a, b load) int { return cmp.Compare(b.count, a.count) })
	for _, load := range loads {
		if h.counts.pending.Load() <= most-most/shedAtLeast {
			return
		}
		if load.chat.end(ErrTooManyPending) {
			h.counts.shed.Add(1)
		}
	}
}

// counts are what a host has done.
type counts struct {
	received, sent, stalled, shed, pending atomic.Int64
}

// Counts are what a host has done since it began, and holds now.
type Counts struct {
	// Chats is how many chats are open, and Pending how many of their notes wait for replies.
	Chats, Pending int64
	// Received is how many notes came in, and Sent how many went out.
	Received, Sent int64
	// Stalled is how many chats were reset because their clients did not take their replies, and Shed how
	// many were ended because too many replies were pending.
	Stalled, Shed int64
}

// Counts returns what the host has done so far.
func (h *Server) Counts() Counts {
	h.mu.Lock()
	chats := int64(len(h.chats))
	h.mu.Unlock()
	return Counts{
		Chats:    chats,
		Pending:  h.counts.pending.Load(),
		Received: h.counts.received.Load(),
		Sent:     h.counts.sent.Load(),
		Stalled:  h.counts.stalled.Load(),
		Shed:     h.counts.shed.Load(),
	}
}
