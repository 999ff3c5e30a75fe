package clientlimit_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/routeguide/server/internal/clientlimit"
)

func TestRateLimitersForIsSameBucketForOneClient(t *testing.T) {
	t.Parallel()
	limiters := clientlimit.NewRateLimiters(10)
	for _, test := range []struct {
		one, other string
		same       bool
	}{
		{"192.0.2.1:1", "192.0.2.1:2", true},
		{"192.0.2.1:1", "192.0.2.2:1", false},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:1", true},
		{"[2001:db8::1]:1", "[2001:db8::ffff]:2", true},
		{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		{"[fe80::1%eth0]:1", "[fe80::1%eth1]:1", true},
		{"invalid addresses", "are one client", true},
	} {
		if same := limiters.For(test.one) == limiters.For(test.other); same != test.same {
			t.Errorf("%s and %s are one client: %v, want %v", test.one, test.other, same, test.same)
		}
	}
}

func TestRateLimitersRateAndBurst(t *testing.T) {
	t.Parallel()
	limiter := clientlimit.NewRateLimiters(10).For("192.0.2.1:1")
	now := time.Now()
	if !limiter.AllowN(now, 100) || limiter.AllowN(now, 1) || !limiter.AllowN(now.Add(time.Second), 10) {
		t.Error("want 100 at once, and then 10 a second")
	}
	if clientlimit.NewRateLimiters(0).For("192.0.2.1:1") != nil {
		t.Error("want no limit")
	}
}

func TestRateLimitersEvictOldClients(t *testing.T) {
	t.Parallel()
	limiters := clientlimit.NewRateLimiters(1)
	first := limiters.For("192.0.2.1:1")
	for i := range 100_000 {
		limiters.For(fmt.Sprintf("[2001:db8:%x:%x::1]:1", i>>16, i&0xffff))
	}
	if limiters.For("192.0.2.1:1") == first {
		t.Error("the first client is still cached, after 100,000 others")
	}
}
