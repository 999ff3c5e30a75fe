package redisstore

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/redis/rueidis"
)

// location is what a URL says.
type location struct {
	options    rueidis.ClientOption
	replicas   int
	partitions int    // 0 is the number that the store has
	redacted   string // the URL without user and password
}

func parseURL(rawURL string) (location, error) {
	parsed, err := url.Parse(rawURL)
	if err != nil {
		// Drop the error of url.Parse: it contains the URL, and perhaps a password.
		return location{}, errors.New("not a URL: want redis://HOST:PORT or rediss://HOST:PORT, with ?addr=HOST:PORT for more nodes")
	}
	if parsed.Scheme != "redis" && parsed.Scheme != "rediss" {
		return location{}, fmt.Errorf("unknown scheme %q: want redis:// or, with TLS, rediss://", parsed.Scheme)
	}
	if parsed.Host == "" {
		return location{}, errors.New("the URL names no host: want redis://HOST:PORT")
	}
	var found location
	for name, values := range parsed.Query() {
		switch name {
		case "addr", "db":
		case "replicas":
			if found.replicas, err = strconv.Atoi(values[0]); err != nil || found.replicas < 0 {
				return location{}, fmt.Errorf("replicas=%s: want a number of replicas", values[0])
			}
		case "partitions":
			if found.partitions, err = strconv.Atoi(values[0]); err != nil || found.partitions < 1 || found.partitions > maxPartitions {
				return location{}, fmt.Errorf("partitions=%s: want a number from 1 to %d", values[0], maxPartitions)
			}
		default:
			return location{}, fmt.Errorf("unknown parameter %q: want addr, db, partitions or replicas", name)
		}
	}
	if found.options, err = rueidis.ParseURL(rawURL); err != nil {
		return location{}, err
	}
	parsed.User = nil
	found.redacted = parsed.String()
	return found, nil
}

// RedactURL returns a URL without user and password, for logs. Its error does not contain the URL.
func RedactURL(rawURL string) (string, error) {
	parsed, err := parseURL(rawURL)
	return parsed.redacted, err
}
