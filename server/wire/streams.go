package wire

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// ErrStalled is the error of writes of a stream that was reset because its client is a slow consumer.
var ErrStalled = errors.New("slow consumer: the response was not read within the stall timeout")

// Streams are the open streams of the handlers that it returns. A watchdog resets those of slow consumers. Its methods are safe for
// concurrent use.
type Streams struct {
	stallTimeout time.Duration
	stalled      atomic.Int64
	done         sync.WaitGroup // the watchdog

	mu     sync.Mutex // guards the fields below
	open   map[*Stream]struct{}
	closed chan struct{} // closed by Close; nil without a watchdog
}

// NewStreams returns streams whose clients must read 32 KiB of a response, or all that is written if that is less, within
// stallTimeout. Idle streams have no timeout; 0 is no timeout for any. The caller must close the streams.
func NewStreams(stallTimeout time.Duration) *Streams {
	streams := &Streams{stallTimeout: stallTimeout, open: make(map[*Stream]struct{})}
	if stallTimeout > 0 {
		streams.closed = make(chan struct{})
		streams.done.Go(streams.watch)
	}
	return streams
}

// NewHandler is [Streams.Handler] without a stall timeout.
func NewHandler(next http.Handler) http.Handler {
	return NewStreams(0).Handler(next)
}

// Handler returns a handler that calls next with a context in which [FromContext] finds the request's stream. It returns when the whole
// response was written to the connection, or cannot be.
func (s *Streams) Handler(next http.Handler) http.Handler {
	return &handler{s, next}
}

type handler struct {
	streams *Streams
	next    http.Handler
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	stream, request := newStream(h.streams, response, request)
	h.streams.add(stream)
	defer h.streams.remove(stream)
	h.next.ServeHTTP((*responseWriter)(stream), request)
	stream.flushRest(h.streams.stallTimeout)
}

// Stalled returns the number of streams that were reset because of slow consumers.
func (s *Streams) Stalled() int64 { return s.stalled.Load() }

// Close stops the watchdog. It must be called once, when no request is in flight.
func (s *Streams) Close() {
	if s.closed != nil {
		close(s.closed)
		s.done.Wait()
	}
}

func (s *Streams) add(stream *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[stream] = struct{}{}
}

func (s *Streams) remove(stream *Stream) {
	s.mu.Lock()
	delete(s.open, stream)
	s.mu.Unlock()
	stream.end()
}

// samplesPerTimeout is the number of watchdog samples of each stream within the stall timeout.
const samplesPerTimeout = 4

// watch samples the progress of all streams, so that no write needs a timer.
func (s *Streams) watch() {
	ticker := time.NewTicker(max(1, s.stallTimeout/samplesPerTimeout))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.sample()
		case <-s.closed:
			return
		}
	}
}

func (s *Streams) sample() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream := range s.open {
		progress := stream.progress.Load()
		if isInFlight := progress%2 == 1; !isInFlight || progress != stream.sampled {
			stream.sampled, stream.unchanged = progress, 0
			continue
		}
		if stream.unchanged++; stream.unchanged == samplesPerTimeout {
			stream.stall()
		}
	}
}

// stall resets the stream of a slow consumer, unless it was reset already.
func (s *Stream) stall() {
	s.mu.Lock()
	wasReset := s.resetCause != nil
	if !wasReset {
		s.resetCause = ErrStalled
		s.streams.stalled.Add(1)
	}
	s.mu.Unlock()
	if !wasReset {
		_ = s.reset(ErrStalled) // It fails if the connection has ended: then there is nothing to reset.
	}
}
