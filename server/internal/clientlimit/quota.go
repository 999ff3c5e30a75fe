package clientlimit

import (
	"errors"
	"math"
	"sync"
)

var (
	// ErrFull says that all clients together have as much as they may.
	ErrFull = errors.New("the server has no more for anyone")
	// ErrShare says that one client has as much as it may, while there is more for others.
	ErrShare = errors.New("the server has more for other clients only")
)

// A Quota bounds how much of something clients may have at once. Its methods may be called concurrently.
type Quota struct {
	most, each int64

	mu   sync.Mutex // guards the rest
	all  int64
	held map[client]int64 // what each client has that has any
}

// NewQuota returns a quota for all clients together, and for each of them. With 0, there is no bound.
func NewQuota(most, each int64) *Quota {
	return &Quota{most: most, each: each, held: make(map[client]int64)}
}

// Share returns how much of most is the share of each client, which is between 0 and 1, and at least one. With 0 for
// one of them, there is no bound.
func Share(most int64, share float64) int64 {
	return int64(math.Ceil(float64(most) * share))
}

// Acquire takes an amount for the client that calls from an address, host:port. It does not wait: the error is
// [ErrFull] or [ErrShare], and then nothing was taken. What was taken must be given back.
func (q *Quota) Acquire(address string, amount int64) error {
	client := q.clientAt(address)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.each > 0 && q.held[client]+amount > q.each:
		return ErrShare
	case q.most > 0 && q.all+amount > q.most:
		return ErrFull
	}
	q.all += amount
	if q.each > 0 {
		q.held[client] += amount
	}
	return nil
}

// Release gives back what was taken.
func (q *Quota) Release(address string, amount int64) {
	client := q.clientAt(address)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all -= amount
	if q.each == 0 {
		return
	}
	if q.held[client] -= amount; q.held[client] <= 0 {
		delete(q.held, client)
	}
}

// InUse returns how much is taken.
func (q *Quota) InUse() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.all
}

// clientAt returns the client at an address, unless nobody needs to know.
func (q *Quota) clientAt(address string) client {
	if q.each == 0 {
		return client{}
	}
	return clientAt(address)
}
