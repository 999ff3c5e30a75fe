package h2

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// watchdog enforces the timeouts of all connections. It is one goroutine that samples their progress, so that no read or write needs
// a timer.
type watchdog struct {
	server *Server
	period time.Duration
	ended  chan struct{} // closed by stop
	once   sync.Once     // closes ended
}

const (
	// samplesPerTimeout is the number of samples within the shortest timeout.
	samplesPerTimeout = 8
	minPeriod         = 5 * time.Millisecond
	maxPeriod         = time.Second
)

func newWatchdog(server *Server) *watchdog {
	period := maxPeriod
	for _, timeout := range []time.Duration{server.ReadHeaderTimeout, server.IdleTimeout, server.PingInterval, server.PingTimeout, server.StallTimeout} {
		if timeout > 0 {
			period = min(period, max(timeout/samplesPerTimeout, minPeriod))
		}
	}
	return &watchdog{server: server, period: period, ended: make(chan struct{})}
}

func (w *watchdog) stop() {
	w.once.Do(func() { close(w.ended) })
}

func (w *watchdog) run() {
	ticker := time.NewTicker(w.period)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case now := <-ticker.C:
			for _, conn := range w.server.open() {
				conn.check(now, now.Sub(last))
			}
			last = now
		case <-w.ended:
			return
		}
	}
}

// watch is what the watchdog has seen of a connection, and since when.
type watch struct {
	reads, writes, arrivals             uint64
	readAt, writeAt, arrivingAt, usedAt time.Time // zero if not so
	pingAt, goAwayAt                    time.Time
	refill                              time.Duration // time for which no glitches were given back
}

// The causes for which the watchdog closes a connection.
var (
	errHeaderTimeout = errors.New("a frame or header block did not arrive in full in time")
	errPingTimeout   = errors.New("no answer to a PING")
	errStalled       = fmt.Errorf("slow consumer: output was not read in time: %w", os.ErrDeadlineExceeded)
)

// check closes the connection if a timeout has passed. passed is the time since the last check.
func (c *conn) check(now time.Time, passed time.Duration) {
	if !c.ready.Load() {
		return // A deadline is set.
	}
	server, w := c.server, &c.watch
	if reads := c.reads.Load(); reads != w.reads || w.readAt.IsZero() {
		w.reads, w.readAt, w.pingAt = reads, now, time.Time{}
	}
	if writes := c.writes.Load(); writes != w.writes || writes%2 == 0 {
		w.writes, w.writeAt = writes, now
	}
	if arrivals := c.arrivals.Load(); arrivals != w.arrivals || arrivals%2 == 0 {
		w.arrivals, w.arrivingAt = arrivals, now
	}
	switch {
	case server.StallTimeout > 0 && now.Sub(w.writeAt) >= server.StallTimeout:
		c.close(errStalled)
		return
	case now.Sub(w.arrivingAt) >= server.ReadHeaderTimeout:
		c.close(errHeaderTimeout)
		return
	case !w.pingAt.IsZero() && now.Sub(w.pingAt) >= server.PingTimeout:
		c.close(errPingTimeout)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.refill += passed; w.refill >= time.Second/glitchesPerSecond {
		c.refill(int(w.refill * glitchesPerSecond / time.Second))
		w.refill = 0
	}
	if len(c.streams) > 0 || c.handlers > 0 || w.usedAt.IsZero() {
		w.usedAt = now
	}
	if server.PingInterval > 0 && w.pingAt.IsZero() && now.Sub(w.readAt) >= server.PingInterval && !c.ending {
		w.pingAt = now
		c.output.appendPing(false, [8]byte{})
		c.startWriter()
	}
	switch {
	case !c.draining && server.IdleTimeout > 0 && now.Sub(w.usedAt) >= server.IdleTimeout:
		c.draining = true
		c.sendGoAway()
	case c.draining && w.goAwayAt.IsZero():
		w.goAwayAt = now
	case c.draining && !c.output.namedLast && now.Sub(w.goAwayAt) >= goAwayTimeout:
		c.endGoAway() // The client does not answer PINGs.
	}
}

// goAwayTimeout is how long the client may take for the round trip between the two GOAWAY frames.
const goAwayTimeout = time.Second
