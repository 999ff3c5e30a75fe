package redisstore

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/redis/rueidis"
)

// parseURL returns the client options of a URL, its number of replicas, and the redacted URL.
func parseURL(rawURL string) (options rueidis.ClientOption, replicas int, redacted string, err error) {
	parsed, err := url.Parse(rawURL)
	if err != nil {
		// Drop the error of url.Parse: it contains the URL, and perhaps a password.
		return options, 0, "", errors.New("not a URL: want redis://HOST:PORT or rediss://HOST:PORT, with ?addr=HOST:PORT for more nodes")
	}
	if parsed.Scheme != "redis" && parsed.Scheme != "rediss" {
		return options, 0, "", fmt.Errorf("unknown scheme %q: want redis:// or, with TLS, rediss://", parsed.Scheme)
	}
	if parsed.Host == "" {
		return options, 0, "", errors.New("the URL names no host: want redis://HOST:PORT")
	}
	for name, values := range parsed.Query() {
		switch name {
		case "addr", "db":
		case "replicas":
			if replicas, err = strconv.Atoi(values[0]); err != nil || replicas < 0 {
				return options, 0, "", fmt.Errorf("replicas=%s: want a number of replicas", values[0])
			}
		default:
			return options, 0, "", fmt.Errorf("unknown parameter %q: want addr, db or replicas", name)
		}
	}
	if options, err = rueidis.ParseURL(rawURL); err != nil {
		return options, 0, "", err
	}
	parsed.User = nil
	return options, replicas, parsed.String(), nil
}

// RedactURL returns a URL without user and password, for logs. Its error does not contain the URL.
func RedactURL(rawURL string) (string, error) {
	_, _, redacted, err := parseURL(rawURL)
	return redacted, err
}
