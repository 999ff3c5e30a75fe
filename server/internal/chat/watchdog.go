package chat

import (
	"sync"
	"time"
)

// looksPerTimeout is how often a watch looks at each chat within the stall timeout.
const looksPerTimeout = 4

// watchdog ends the chats that are stalled. One goroutine looks at all chats, so that no write needs a timer.
type watchdog struct {
	host *Server
	stop chan struct{}
	done sync.WaitGroup
}

// sample is what a watch has seen of a chat.
type sample struct {
	progress int64
	same     int // how often in a row it was that
}

func startWatch(host *Server) *watchdog {
	watch := &watchdog{host: host, stop: make(chan struct{})}
	watch.done.Go(func() {
		ticker := time.NewTicker(max(1, host.options.StallTimeout/looksPerTimeout))
		defer ticker.Stop()
		looks := make(map[*chat]sample)
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
func (w *watchdog) look(before map[*chat]sample) map[*chat]sample {
	w.host.mu.Lock()
	defer w.host.mu.Unlock()
	seen := make(map[*chat]sample)
	for chat := range w.host.chats {
		if !chat.taking.Load() {
			continue
		}
		now := sample{progress: chat.progress.Load()}
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

func (w *watchdog) close() {
	close(w.stop)
	w.done.Wait()
}
