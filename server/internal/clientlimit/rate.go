package clientlimit

import (
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	// maxClients is the size of the LRU cache of token buckets, about 200 bytes each. A client that was evicted starts
	// with a full bucket.
	maxClients = 100_000
	// burstSeconds is the size of a token bucket, in seconds at the rate.
	burstSeconds = 10
)

// RateLimiters are token buckets, one for each client. Its methods may be called concurrently.
type RateLimiters struct {
	perSecond float64
	limiters  *lru.Cache[client, *rate.Limiter] // nil if there is no limit
}

// NewRateLimiters returns token buckets with a rate per second for each client. 0 is no limit.
func NewRateLimiters(perSecond float64) *RateLimiters {
	limiters := &RateLimiters{perSecond: perSecond}
	if perSecond > 0 {
		// The error is for a size that is not positive.
		limiters.limiters, _ = lru.New[client, *rate.Limiter](maxClients)
	}
	return limiters
}

// For returns the token bucket of the client at a peer's host:port, or nil if there is no limit.
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
