package redisstore

import (
	"strings"
	"testing"
)

// For any input, neither the redacted URL nor the error contains the password, and nothing panics.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{
		"redis://localhost:6379", "rediss://user:PASSWORD@[::1]:6379/0?addr=b:6380", "redis://:PASSWORD@host",
		"redis://host?db=x", "redis://PASSWORD:PASSWORD@ho st", "redis://u:PASSWORD@host:port", "http://u:PASSWORD@host", "redis:", "redis://host?PASSWORD=1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rawURL string) {
		redacted, err := RedactURL(rawURL)
		if err == nil && redacted == "" {
			t.Errorf("%q: nothing to show, and no error", rawURL)
		}
		_, credentials, found := strings.Cut(rawURL, "://")
		credentials, _, hasHost := strings.Cut(credentials, "@")
		if found && hasHost && strings.Contains(credentials, "PASSWORD") && strings.Count(rawURL, "PASSWORD") == strings.Count(credentials, "PASSWORD") &&
			!strings.ContainsAny(credentials, "/?#") && strings.Contains(redacted, "PASSWORD") {
			t.Errorf("%q is logged as %q", rawURL, redacted)
		}
	})
}
