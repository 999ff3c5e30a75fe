package main

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
)

// originList is the origins of web pages, as browsers send them in the header Origin
// (https://www.rfc-editor.org/rfc/rfc6454#section-6.2), or patterns of them with one *. It is given with commas.
type originList []string

// UnmarshalText implements [encoding.TextUnmarshaler].
func (l *originList) UnmarshalText(text []byte) error {
	for origin := range strings.SplitSeq(string(text), ",") {
		origin = strings.ToLower(strings.TrimSpace(origin))
		if origin == "" {
			continue
		}
		if err := checkOrigin(origin); err != nil {
			return err
		}
		*l = append(*l, origin)
	}
	return nil
}

// checkOrigin validates an origin, or a pattern of origins, in lower case.
func checkOrigin(origin string) error {
	if origin == "*" {
		return nil
	}
	wrong := func(why string) error {
		return fmt.Errorf("%q is no origin: %s; want scheme://host or scheme://host:port, such as https://example.com", origin, why)
	}
	// A digit is valid wherever * is.
	parsed, err := url.Parse(strings.ReplaceAll(origin, "*", "0"))
	switch {
	case err != nil || parsed.Scheme == "" || parsed.Hostname() == "":
		return wrong("it has no scheme or no host")
	case strings.ReplaceAll(origin, "*", "0") != parsed.Scheme+"://"+parsed.Host:
		return wrong("it has more than scheme, host and port, such as a path or a slash at its end")
	case strings.HasSuffix(parsed.Host, ":"),
		parsed.Scheme == "https" && parsed.Port() == "443",
		parsed.Scheme == "http" && parsed.Port() == "80":
		return wrong("browsers leave out the port that the scheme has by default")
	case strings.ContainsFunc(origin, func(r rune) bool { return r > unicode.MaxASCII }):
		return wrong("browsers send names in ASCII (xn--...)")
	case strings.Count(origin, "*") > 1:
		return wrong("only one * can be in it")
	default:
		return nil
	}
}
