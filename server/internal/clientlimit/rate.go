package clientlimit

import (
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
)

// RateLimiters bound how often each client may do something. Its methods may be called concurrently.
type RateLimiters struct {
	perSecond float64
	limiters  *lru.Cache[client, *rate.Limiter]
}

// NewRateLimiters returns the rates of clients each of which may do so many things a second. With 0, there is no
// bound.
func NewRateLimiters(perSecond float64) *RateLimiters {
	rates := &RateLimiters{perSecond: perSecond}
	if perSecond > 0 {
		// The error is one of a size that is not positive.
		rates.limiters, _ = lru.New[client, *rate.Limiter](maxClients)
	}
	return rates
}

// For returns the rate of the client that calls from an address, host:port. It is nil if there is no bound.
func (r *RateLimiters) For(address string) *rate.Limiter {
	if r.limiters == nil {
		return nil
	}
	client := clientAt(address)
	if limiter, ok := r.limiters.Get(client); ok {
		return limiter
	}
	limiter := rate.NewLimiter(rate.Limit(r.perSecond), max(1, int(burstSeconds*r.perSecond)))
	if other, ok, _ := r.limiters.PeekOrAdd(client, limiter); ok {
		return other
	}
	return limiter
}
