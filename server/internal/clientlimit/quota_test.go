package clientlimit_test

import (
	"errors"
	"sync"
	"testing"

	"example.com/routeguide/server/internal/clientlimit"
)

func TestQuotaLimitsEachClientAndAll(t *testing.T) {
	t.Parallel()
	quota := clientlimit.NewQuota(10, 4)
	const a, again, b, c = "192.0.2.1:1", "192.0.2.1:2", "192.0.2.2:1", "[2001:db8::1]:1"
	for _, step := range []struct {
		address string
		amount  int64
		want    error
	}{
		{a, 3, nil},
		{again, 2, clientlimit.ErrShare},
		{again, 1, nil},
		{b, 4, nil},
		{c, 3, clientlimit.ErrFull},
		{c, 2, nil},
		{c, 1, clientlimit.ErrFull},
	} {
		if err := quota.Acquire(step.address, step.amount); !errors.Is(err, step.want) {
			t.Errorf("%s acquires %d: got %v, want %v", step.address, step.amount, err, step.want)
		}
	}
	quota.Release(again, 4)
	if err := quota.Acquire(c, 2); err != nil {
		t.Errorf("after another client's Release: %v", err)
	}
	quota.Release(b, 4)
	quota.Release(c, 4)
	if inUse := quota.InUse(); inUse != 0 {
		t.Errorf("%d in use after all was released", inUse)
	}
}

func TestQuotaWithoutLimit(t *testing.T) {
	t.Parallel()
	quota := clientlimit.NewQuota(0, 0)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 1000 {
				if err := quota.Acquire("192.0.2.1:1", 1<<40); err != nil {
					t.Error(err)
				}
			}
			for range 1000 {
				quota.Release("192.0.2.1:1", 1<<40)
			}
		})
	}
	clients.Wait()
	if inUse := quota.InUse(); inUse != 0 {
		t.Errorf("%d in use after all was released", inUse)
	}
}
