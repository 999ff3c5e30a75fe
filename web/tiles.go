package web

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Tiles is a tile server, as the template of its URLs: https://tile.example.org/{z}/{x}/{y}.png. The zero value is none. UnmarshalText is the only
// way to make another one, so that every value is safe in a Content-Security-Policy.
type Tiles struct {
	template string
	origin   string // scheme://host, with the port if there is one
}

// The syntax of a host-source of a Content-Security-Policy (https://www.w3.org/TR/CSP3/#grammardef-host-source), without wildcards: it has no
// brackets of IPv6.
var (
	hostPattern        = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)*$`)
	placeholderPattern = regexp.MustCompile(`\{[^{}]*\}`)
)

// String returns the template, or "" if there is no tile server.
func (t Tiles) String() string { return t.template }

// UnmarshalText implements [encoding.TextUnmarshaler]. An empty text is no tile server.
func (t *Tiles) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*t = Tiles{}
		return nil
	}
	template := string(text)
	origin, err := originOf(template)
	if err != nil {
		return fmt.Errorf("%q: %w; want a URL such as https://tile.example.org/{z}/{x}/{y}.png", template, err)
	}
	*t = Tiles{template, origin}
	return nil
}

// originOf validates a template, and returns its origin.
func originOf(template string) (string, error) {
	if strings.ContainsFunc(template, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'<>\\^`|", r) }) {
		return "", errors.New("it has a character that must be percent-encoded")
	}
	if strings.ContainsAny(placeholderPattern.ReplaceAllString(template, ""), "{}") {
		return "", errors.New("it has a brace that is not of a placeholder")
	}
	found := make(map[string]bool)
	for _, placeholder := range placeholderPattern.FindAllString(template, -1) {
		if found[placeholder] = true; placeholder != "{z}" && placeholder != "{x}" && placeholder != "{y}" {
			return "", fmt.Errorf("%s is none of the placeholders {z}, {x} and {y} (instead of {s}, name one host)", placeholder)
		}
	}
	if len(found) != len("zxy") {
		return "", errors.New("it must have the placeholders {z}, {x} and {y}")
	}
	parsed, err := url.Parse(template)
	if err != nil {
		return "", errors.New("it is not a URL")
	}
	host, port, err := splitPort(strings.ToLower(parsed.Host))
	switch {
	case parsed.Scheme != "https" && parsed.Scheme != "http":
		return "", errors.New("its scheme is neither https nor http")
	case parsed.User != nil:
		return "", errors.New("it has a user, whom every visitor of the page would see")
	case err != nil || !hostPattern.MatchString(host):
		return "", errors.New("its host is neither a name nor an IPv4 address, in ASCII (xn--...)")
	case port != "" && !isPort(port):
		return "", errors.New("its port is not a number from 1 to 65535")
	case strings.Contains(template, "#"):
		return "", errors.New("it has a fragment")
	}
	origin := parsed.Scheme + "://" + host
	if port != "" {
		origin += ":" + port
	}
	return origin, nil
}

func isPort(text string) bool {
	number, err := strconv.ParseUint(text, 10, 16)
	return err == nil && number > 0
}

// splitPort splits host or host:port.
func splitPort(address string) (host, port string, err error) {
	if !strings.Contains(address, ":") {
		return address, "", nil
	}
	host, port, err = net.SplitHostPort(address)
	if err == nil && port == "" {
		err = errors.New("no port after the colon")
	}
	return host, port, err
}
