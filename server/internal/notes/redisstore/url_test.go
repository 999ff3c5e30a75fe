package redisstore

import (
	"strings"
	"testing"
)

// Whatever is given as the URL of Redis, neither what is logged nor an error has the password in it, and nothing
// panics.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{
		"redis://localhost:6379", "rediss://user:PASSWORD@[::1]:6379/0?addr=b:6380", "redis://:PASSWORD@host",
		"redis://host?db=x", "redis://PASSWORD:PASSWORD@ho st", "redis://u:PASSWORD@host:port", "http://u:PASSWORD@host", "redis:", "redis://host?PASSWORD=1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, where string) {
		shown, err := Shown(where)
		if err == nil && shown == "" {
			t.Errorf("%q: nothing to show, and no error", where)
		}
		_, credentials, found := strings.Cut(where, "://")
		credentials, _, hasHost := strings.Cut(credentials, "@")
		if found && hasHost && strings.Contains(credentials, "PASSWORD") && strings.Count(where, "PASSWORD") == strings.Count(credentials, "PASSWORD") &&
			!strings.ContainsAny(credentials, "/?#") && strings.Contains(shown, "PASSWORD") {
			t.Errorf("%q is logged as %q", where, shown)
		}
	})
}
