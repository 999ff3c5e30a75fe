package clientlimit

import (
	"fmt"
	"testing"
)

// A quota must not grow with the number of clients it has seen.
func TestQuotaDropsClientsThatHoldNothing(t *testing.T) {
	t.Parallel()
	quota := NewQuota(100, 2)
	for i := range 1000 {
		address := fmt.Sprintf("192.0.%d.%d:1", i>>8, i&0xff)
		if err := quota.Acquire(address, 2); err != nil {
			t.Fatal(err)
		}
		if quota.Acquire(address, 1) == nil {
			t.Fatal("a client holds more than its share")
		}
		quota.Release(address, 1)
		quota.Release(address, 1)
		if entries := len(quota.byClient); entries != 0 {
			t.Fatalf("%d entries of clients that hold nothing", entries)
		}
	}
}

func TestShareIsRoundedUp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limit int64
		share float64
		want  int64
	}{
		{1, 0.1, 1},
		{5, 0.1, 1},
		{15, 0.1, 2},
		{100, 0.1, 10},
		{10_000, 0.1, 1000},
		{3, 0.5, 2},
		{7, 1, 7},
		{0, 0.1, 0},
		{100, 0, 0},
	} {
		if got := Share(test.limit, test.share); got != test.want {
			t.Errorf("a share of %g of %d is %d, want %d", test.share, test.limit, got, test.want)
		}
	}
}
