package redisstore

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/redis/rueidis"
)

// parseURL returns the options that a URL stands for, and the URL as it may be logged: without user
// and password.
func parseURL(where string) (options rueidis.ClientOption, shown string, err error) {
	parsed, err := url.Parse(where)
	if err != nil {
		// The error of url.Parse has the URL, and perhaps a password, in it.
		return options, "", errors.New("it is not a URL: want redis://HOST:PORT or rediss://HOST:PORT, with ?addr=HOST:PORT for more nodes")
	}
	if parsed.Scheme != "redis" && parsed.Scheme != "rediss" {
		return options, "", fmt.Errorf("its scheme is %q: want redis:// or, with TLS, rediss://", parsed.Scheme)
	}
	if parsed.Host == "" {
		return options, "", errors.New("it names no host: want redis://HOST:PORT")
	}
	for name := range parsed.Query() {
		switch name {
		case "addr", "db":
		default:
			return options, "", fmt.Errorf("it has the parameter %q, and only addr and db are known", name)
		}
	}
	if options, err = rueidis.ParseURL(where); err != nil {
		return options, "", err
	}
	parsed.User = nil
	return options, parsed.String(), nil
}

// Shown returns a URL as it may be logged: without user and password. The error says what is wrong
// with the URL, and does not have it.
func Shown(where string) (string, error) {
	_, shown, err := parseURL(where)
	return shown, err
}
