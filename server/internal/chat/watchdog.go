package chat

import (
	"sync"
	"time"
)

// samplesPerTimeout is the number of watchdog samples of each chat within the stall timeout.
const samplesPerTimeout = 4

// watchdog ends the chats of slow consumers. It is one goroutine that samples the progress of all chats, so
// that no write needs a timer.
type watchdog struct {
	server *Server
	stop   chan struct{} // closed by close
	done   sync.WaitGroup
}

// sample is the watchdog's last observation of a chat that has a write in flight.
type sample struct {
	progress  int64 // the chat's progress counter
	unchanged int   // consecutive samples without progress
}

func startWatchdog(server *Server) *watchdog {
	watchdog := &watchdog{server: server, stop: make(chan struct{})}
	watchdog.done.Go(func() {
		ticker := time.NewTicker(max(1, server.options.StallTimeout/samplesPerTimeout))
		defer ticker.Stop()
		samples := make(map[*chat]sample)
		for {
			select {
			case <-ticker.C:
				samples = watchdog.check(samples)
			case <-watchdog.stop:
				return
			}
		}
	})
	return watchdog
}

// check samples every chat that has a write in flight and ends those without progress for the stall timeout. It
// returns the samples of the others.
func (w *watchdog) check(previous map[*chat]sample) map[*chat]sample {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	samples := make(map[*chat]sample)
	for chat := range w.server.chats {
		if !chat.inFlight.Load() {
			continue
		}
		current := sample{progress: chat.progress.Load()}
		if last, ok := previous[chat]; ok && last.progress == current.progress {
			current.unchanged = last.unchanged + 1
		}
		if current.unchanged < samplesPerTimeout {
			samples[chat] = current
			continue
		}
		if chat.end(ErrStalled) {
			w.server.counts.stalled.Add(1)
		}
	}
	return samples
}

func (w *watchdog) close() {
	close(w.stop)
	w.done.Wait()
}
