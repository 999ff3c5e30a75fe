package chat

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"example.com/routeguide/server/internal/notes"
)

// DefaultMaxPending is the default of [Options].MaxPending, in notes.
const DefaultMaxPending = 1 << 18

// Options configure a [Server]. Only Store is required; 0 is no limit, unless a field says otherwise.
type Options struct {
	// Store keeps the notes.
	Store notes.Store
	// History is the largest number of notes in a reply: the newest ones.
	History int
	// MaxText is the largest text of a note, in bytes. The encoded note may be 1 KiB larger.
	MaxText int
	// MaxPending is the largest number of notes of one chat whose replies are pending; 0 is
	// [DefaultMaxPending]. At the limit the chat stops receiving: backpressure on a client that sends without
	// reading.
	MaxPending int
	// MaxPendingInAll is the largest number of notes of all chats whose replies are pending, at 48 bytes each.
	// Beyond it, the chats with the most pending replies are ended.
	MaxPendingInAll int
	// Now is the wall clock, in nanoseconds since 1970; the default is [notes.Now]. Note times never decrease
	// within a server: after the clock was set back, notes get the time of the last one.
	Now func() int64
}

// A Server serves chats. Its methods may be called concurrently.
type Server struct {
	options         Options
	rateLimitLifted chan struct{} // closed by LiftRateLimit
	clock           clock
	counts          counts

	mu       sync.Mutex // guards the rest
	chats    map[*chat]struct{}
	stopping error // cause of StopFollowing
}

// NewServer returns a server.
func NewServer(options Options) *Server {
	if options.MaxPending == 0 {
		options.MaxPending = DefaultMaxPending
	}
	if options.Now == nil {
		options.Now = notes.Now
	}
	return &Server{
		options:         options,
		clock:           clock{wall: options.Now},
		rateLimitLifted: make(chan struct{}),
		chats:           make(map[*chat]struct{}),
	}
}

// LiftRateLimit releases the chats that wait for a token, for a graceful shutdown. It must be called at most
// once.
func (s *Server) LiftRateLimit() {
	close(s.rateLimitLifted)
}

// ErrAborted is the error of chats that the server ended before all their notes were answered: the fate of those is unknown to
// the client.
var ErrAborted = fmt.Errorf("%w: the server ended before it was answered", notes.ErrUnknown)

// Abort ends the chats that still have pending replies, with [ErrAborted], because the server cannot wait for them any longer.
func (s *Server) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for chat := range s.chats {
		if chat.countPending() > 0 {
			chat.end(ErrAborted)
		}
	}
}

// OldestPending returns the time of the oldest note whose reply is pending, or now if that is earlier.
// Retention must spare the notes from that time on: a reply ends with its own note.
func (s *Server) OldestPending(now int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := now
	for chat := range s.chats {
		oldest = min(oldest, chat.oldestPending(now))
	}
	return oldest
}

// Traffic is the number of notes of one chat.
type Traffic struct {
	// In is the number of notes received and appended, and Out the number of notes sent.
	In, Out int64
}

// Serve serves one chat until it ends. It returns nil if the client has closed its side and was sent all its
// replies. Otherwise it returns the cause: the error of a note that breaks a rule, of the store, or of the
// stream. Notes before the one that failed are kept, and their replies sent as long as the stream accepts
// them. A limiter that is not nil is the token bucket for notes received.
//
// The two directions are independent. The calling goroutine receives and appends. A second one sends settled
// replies in order; it exists only while there are some that the first one could not send without blocking.
func (s *Server) Serve(ctx context.Context, stream Stream, limiter *rate.Limiter) (Traffic, error) {
	chat := &chat{ctx: ctx, server: s, stream: stream, limiter: limiter}
	chat.changed.L = &chat.mu
	chat.sendChunk = chat.sendNotes
	s.add(chat)
	err := chat.conclude(chat.receive())
	return Traffic{In: chat.received, Out: chat.sent}, err
}

func (s *Server) add(chat *chat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chats[chat] = struct{}{}
	if s.stopping != nil {
		chat.stop(s.stopping)
	}
}

func (s *Server) remove(chat *chat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.chats, chat)
}

// shedPart is the part of MaxPendingInAll, as a divisor, that shed frees at least. The next scan of all chats
// comes only after that many further notes, which amortizes its cost.
const shedPart = 64

// shed does load shedding: it ends the chats with the most pending replies until the total is below
// MaxPendingInAll.
func (s *Server) shed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := int64(s.options.MaxPendingInAll)
	if s.counts.pending.Load() <= limit {
		return // A concurrent call has freed enough.
	}
	type load struct {
		chat  *chat
		count int
	}
	var loads []load
	for chat := range s.chats {
		if count := chat.countPending(); count > 0 {
			loads = append(loads, load{chat, count})
		}
	}
	slices.SortFunc(loads, func(a, b load) int { return cmp.Compare(b.count, a.count) })
	for _, load := range loads {
		if s.counts.pending.Load() <= limit-limit/shedPart {
			return
		}
		if load.chat.end(ErrTooManyPending) {
			s.counts.shed.Add(1)
		}
	}
}

// counts are the counters behind [Counts].
type counts struct {
	received, sent, shed, pending, held atomic.Int64
}

// Counts are the counters of a [Server] since its start, and its current gauges.
type Counts struct {
	// Chats is the number of open chats, and Pending the number of their notes whose replies are pending.
	Chats, Pending int64
	// Received and Sent are the numbers of notes received, those of [Server.Leave] included, and sent.
	Received, Sent int64
	// Shed is the number of chats ended because too many replies were pending.
	Shed int64
}

// Counts returns the current counts.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	chats := int64(len(s.chats))
	s.mu.Unlock()
	return Counts{
		Chats:    chats,
		Pending:  s.counts.pending.Load(),
		Received: s.counts.received.Load(),
		Sent:     s.counts.sent.Load(),
		Shed:     s.counts.shed.Load(),
	}
}
