package clientlimit

import (
	"errors"
	"math"
	"sync"
)

var (
	// ErrFull means that all clients together have reached the limit.
	ErrFull = errors.New("the limit of the server is reached")
	// ErrShare means that the client has reached its share, below the limit of the server.
	ErrShare = errors.New("the share of this client is reached")
)

// A Quota limits an amount that clients hold at once: for each client, and for all together. Its methods may be called
// concurrently.
type Quota struct {
	limit, clientLimit int64 // 0 is no limit

	mu       sync.Mutex // guards the rest
	inUse    int64
	byClient map[client]int64 // clients that hold nothing have no entry
}

// NewQuota returns a quota with a limit for all clients together, and one for each client. 0 is no limit.
func NewQuota(limit, clientLimit int64) *Quota {
	return &Quota{limit: limit, clientLimit: clientLimit, byClient: make(map[client]int64)}
}

// Share returns the limit for each client: the fraction share of limit, rounded up. It returns 0, no limit, if one of
// them is 0.
func Share(limit int64, share float64) int64 {
	return int64(math.Ceil(float64(limit) * share))
}

// Acquire acquires an amount for the client at a peer's host:port. It does not wait: on [ErrFull] or [ErrShare],
// nothing was acquired. The caller must Release what it acquired.
func (q *Quota) Acquire(address string, amount int64) error {
	client := q.clientAt(address)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.clientLimit > 0 && q.byClient[client]+amount > q.clientLimit:
		return ErrShare
	case q.limit > 0 && q.inUse+amount > q.limit:
		return ErrFull
	}
	q.inUse += amount
	if q.clientLimit > 0 {
		q.byClient[client] += amount
	}
	return nil
}

// Release releases an amount that Acquire acquired for the same client.
func (q *Quota) Release(address string, amount int64) {
	client := q.clientAt(address)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inUse -= amount
	if q.clientLimit == 0 {
		return
	}
	if q.byClient[client] -= amount; q.byClient[client] <= 0 {
		delete(q.byClient, client)
	}
}

// InUse returns the amount that all clients hold.
func (q *Quota) InUse() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.inUse
}

// clientAt is the function clientAt, without its cost if there is no limit for each client.
func (q *Quota) clientAt(address string) client {
	if q.clientLimit == 0 {
		return client{}
	}
	return clientAt(address)
}
