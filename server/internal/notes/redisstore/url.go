package redisstore

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/redis/rueidis"
)

// parseURL returns the options that a URL stands for, the number of replicas in it, and the URL as it may be logged:
// without user and password.
func parseURL(where string) (options rueidis.ClientOption, replicas int, shown string, err error) {
	parsed, err := url.Parse(where)
	if err != nil {
		// The error of url.Parse has the URL, and perhaps a password, in it.
		return options, 0, "", errors.New("it is not a URL: want redis://HOST:PORT or rediss://HOST:PORT, with ?addr=HOST:PORT for more nodes")
	}
	if parsed.Scheme != "redis" && parsed.Scheme != "rediss" {
		return options, 0, "", fmt.Errorf("its scheme is %q: want redis:// or, with TLS, rediss://", parsed.Scheme)
	}
	if parsed.Host == "" {
		return options, 0, "", errors.New("it names no host: want redis://HOST:PORT")
	}
	for name, values := range parsed.Query() {
		switch name {
		case "addr", "db":
		case "replicas":
			if replicas, err = strconv.Atoi(values[0]); err != nil || replicas < 0 {
				return options, 0, "", fmt.Errorf("replicas=%s: want a number of replicas", values[0])
			}
		default:
			return options, 0, "", fmt.Errorf("it has the parameter %q, and only addr, db and replicas are known", name)
		}
	}
	if options, err = rueidis.ParseURL(where); err != nil {
		return options, 0, "", err
	}
	parsed.User = nil
	return options, replicas, parsed.String(), nil
}

// Shown returns a URL as it may be logged: without user and password. The error says what is wrong
// with the URL, and does not have it.
func Shown(where string) (string, error) {
	_, _, shown, err := parseURL(where)
	return shown, err
}
