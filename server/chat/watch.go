package chat

import (
	"sync"
	"sync/atomic"
	"time"
)

// looksPerTimeout is how often a watch looks at each chat within the stall timeout.
const looksPerTimeout = 4

// watch ends the chats that are stalled. One goroutine looks at all chats, so that no write needs a timer.
type watch struct {
	host *Host
	stop chan struct{}
	done sync.WaitGroup
}

// look is what a watch has seen of a chat.
type look struct {
	progress int64
	same     int // how often in a row it was that
}

func startWatch(host *Host) *watch {
	watch := &watch{host: host, stop: make(chan struct{})}
	watch.done.Go(func() {
		ticker := time.NewTicker(max(1, host.options.StallTimeout/looksPerTimeout))
		defer ticker.Stop()
		looks := make(map[*chat]look)
		for {
			select {
			case <-ticker.C:
				looks = watch.look(looks)
			case <-watch.stop:
				return
			}
		}
	})
	return watch
}

// look resets the chats that have made no progress for as long as they may, and returns what it saw of those
// that have something to send.
func (w *watch) look(before map[*chat]look) map[*chat]look {
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	seen := make(map[*chat]look)
	for chat := range w.host.chats {
		if !chat.taking.Load() {
			continue
		}
		now := look{progress: chat.progress.Load()}
		if last, ok := before[chat]; ok && last.progress == now.progress {
			now.same = last.same + 1
		}
		if now.same < looksPerTimeout {
			seen[chat] = now
			continue
		}
		if chat.end(ErrStalled) {
			w.host.counts.stalled.Add(1)
		}
	}
	return seen
}

func (w *watch) close() {
	close(w.stop)
	w.done.Wait()
}

// shed ends the chat that has the most replies pending.
func (h *Host) shed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counts.pending.Load() <= int64(h.options.MaxPendingInAll) {
		return // Another chat was ended meanwhile.
	}
	var largest *chat
	most := 0
	for chat := range h.chats {
		if count := chat.countPending(); count > most {
			largest, most = chat, count
		}
	}
	if largest != nil && largest.end(ErrTooManyPending) {
		h.counts.shed.Add(1)
	}
}

// countPending returns how many replies are pending and will be sent.
func (c *chat) countPending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure != nil {
		return 0
	}
	return c.pending.count
}

// end ends the chat with err, even if its stream blocks: then it is reset, since it cannot carry an error any
// more. It returns false if the chat had failed before.
func (c *chat) end(err error) bool {
	c.mu.Lock()
	first := c.failure == nil
	c.fail(err)
	c.mu.Unlock()
	c.stopped.Store(true)
	if c.taking.Load() {
		c.stream.Reset()
	}
	return first
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
func (h *Host) Counts() Counts {
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
