package main

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"example.com/routeguide/internal/command"
)

func TestCORSOriginsAllowPreflight(t *testing.T) {
	url, stop := start(t, "--cors-origins", " https://example.com , HTTP://Localhost:3000,", "--cors-origins", "https://*.example.net")
	for origin, allowed := range map[string]bool{
		"https://example.com": true, "http://localhost:3000": true, "https://a.example.net": true, "https://example.org": false,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, url+"/routeguide.RouteGuide/GetFeature", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", origin)
		request.Header.Set("Access-Control-Request-Method", "POST")
		request.Header.Set("Access-Control-Request-Headers", "connect-protocol-version,content-type")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := response.Header.Get("Access-Control-Allow-Origin"); (got == origin) != allowed {
			t.Errorf("%s: Access-Control-Allow-Origin is %q, want allowed: %v", origin, got, allowed)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestCORSOriginsRefusesInvalidOrigins(t *testing.T) {
	for origin, want := range map[string]string{
		"example.com":                         "it has no scheme",
		"example.com:8080":                    "it has no scheme",
		"//example.com":                       "it has no scheme",
		"null":                                "it has no scheme",
		"https://":                            "it has no scheme or no host",
		"https://:8080":                       "it has no scheme or no host",
		"https://example.com/":                "a slash at its end",
		"https://example.com/page":            "such as a path",
		"https://example.com?":                "it has more than",
		"https://example.com?x=1":             "it has more than",
		"https://example.com#":                "it has more than",
		"https://user@example.com":            "it has more than",
		"https://example.com:443":             "browsers leave out the port",
		"http://example.com:80":               "browsers leave out the port",
		"http://example.com:":                 "browsers leave out the port",
		"https://a.example https://b.example": "it has no scheme or no host",
		"https://b\u00fccher.example":         "in ASCII",
		"https://*.*.example":                 "only one *",
		"https://good.example, bad.example":   "\"bad.example\" is no origin",
	} {
		_, err := command.Parse(&serverFlags{}, "server", "", map[string]string{"stores": ""}, []string{"--cors-origins", origin}, io.Discard, io.Discard)
		var usage *command.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), "--cors-origins: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a usage error with %q", origin, err, want)
		}
	}
	for _, origin := range []string{"*", "capacitor://localhost", "http://[::1]:3000", "http://localhost:*"} {
		if err := checkOrigin(origin); err != nil {
			t.Error(err)
		}
	}
}
