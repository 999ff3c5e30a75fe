// Package pace bounds how fast each client may go. It tells clients apart by the address that they call
// from, and knows nothing of what they ask for.
package pace

import (
	"net/netip"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	// maxClients is how many clients are known at once, about 200 bytes each. Who has not called for
	// longest is forgotten first, and then begins anew.
	maxClients = 100_000
	// burstSeconds is for how many seconds' worth a client that has been silent may go as fast as it
	// likes.
	burstSeconds = 10
	// clientBits is how much of an IPv6 address says whose it is: a home or a host gets 64 bits for itself
	// (https://www.rfc-editor.org/rfc/rfc6177).
	clientBits = 64
)

// Clients are the paces of clients. Its methods may be called concurrently.
type Clients struct {
	perSecond float64
	limiters  *lru.Cache[netip.Prefix, *rate.Limiter]
}

// NewClients returns the paces of clients each of which may do so many things a second. With 0, there is no
// bound.
func NewClients(perSecond float64) *Clients {
	clients := &Clients{perSecond: perSecond}
	if perSecond > 0 {
		// The error is one of a size that is not positive.
		clients.limiters, _ = lru.New[netip.Prefix, *rate.Limiter](maxClients)
	}
	return clients
}

// Of returns the pace of the client that calls from an address, host:port. It is nil if there is no bound. Who
// the client says that it calls for, in a header, does not count: it may say what it likes.
func (c *Clients) Of(address string) *rate.Limiter {
	if c.limiters == nil {
		return nil
	}
	client := client(address)
	if limiter, ok := c.limiters.Get(client); ok {
		return limiter
	}
	limiter := rate.NewLimiter(rate.Limit(c.perSecond), max(1, int(burstSeconds*c.perSecond)))
	if other, ok, _ := c.limiters.PeekOrAdd(client, limiter); ok {
		return other
	}
	return limiter
}

// client returns the addresses that one client has. What is no address is one client.
func client(address string) netip.Prefix {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip := parsed.Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = clientBits
	}
	prefix, _ := ip.Prefix(bits) // The error is one of a number of bits that the address does not have.
	return prefix
}
