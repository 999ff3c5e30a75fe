package web

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestTilesRefusesInvalidTemplates(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		"{z}/{x}/{y}":                                      "scheme",
		"tile.example.org/{z}/{x}/{y}":                     "scheme",
		"//tile.example.org/{z}/{x}/{y}":                   "scheme",
		"ftp://tile.example.org/{z}/{x}/{y}":               "scheme",
		"javascript://tile.example.org/{z}/{x}/{y}":        "scheme",
		"data:image/png,{z}{x}{y}":                         "scheme",
		"https://tile.example.org/{z}/{x}":                 "placeholders",
		"https://tile.example.org/{Z}/{X}/{Y}":             "{Z} is none",
		"https://{s}.tile.example.org/{z}/{x}/{y}":         "instead of {s}",
		"https://tile.example.org/{z}/{x}/{y}{r}.png":      "{r} is none",
		"https://tile.example.org/{z}/{x}/{y}/{":           "brace",
		"https://tile.example.org/}{z}/{x}/{y}":            "brace",
		"https:///{z}/{x}/{y}":                             "host",
		"https://:8080/{z}/{x}/{y}":                        "host",
		"https://*/{z}/{x}/{y}":                            "host",
		"https://*.example.org/{z}/{x}/{y}":                "host",
		"https://a;b/{z}/{x}/{y}":                          "host",
		"https://a,b/{z}/{x}/{y}":                          "host",
		"https://a'self'/{z}/{x}/{y}":                      "percent-encoded",
		"https://a.example;script-src/{z}/{x}/{y}":         "host",
		"https://a%3bscript-src/{z}/{x}/{y}":               "not a URL",
		"https://a.example script-src/{z}/{x}/{y}":         "percent-encoded",
		"https://a.example/\r\nX: y/{z}/{x}/{y}":           "percent-encoded",
		"https://b\u00fccher.example/{z}/{x}/{y}":          "percent-encoded",
		"https://{z}.example/{x}/{y}":                      "not a URL",
		"https://[::1]/{z}/{x}/{y}":                        "host",
		"https://[::1]:80/{z}/{x}/{y}":                     "host",
		"https://tile.example.org./{z}/{x}/{y}":            "host",
		"https://tile.example.org:/{z}/{x}/{y}":            "host",
		"https://tile.example.org:0/{z}/{x}/{y}":           "port",
		"https://tile.example.org:70000/{z}/{x}/{y}":       "port",
		"https://tile.example.org:*/{z}/{x}/{y}":           "not a URL",
		"https://user:secret@tile.example.org/{z}/{x}/{y}": "user",
		"https://tile.example.org/{z}/{x}#{y}":             "fragment",
	} {
		var tiles Tiles
		if err := tiles.UnmarshalText([]byte(template)); err == nil || !strings.Contains(err.Error(), want) || tiles != (Tiles{}) {
			t.Errorf("%q: got %v, want an error with %q", template, err, want)
		}
	}
}

func TestTilesOriginIsInPolicy(t *testing.T) {
	t.Parallel()
	for template, origin := range map[string]string{
		"": "",
		"https://tile.example.org/{z}/{x}/{y}.png":                         " https://tile.example.org",
		"HTTP://Tile.Example.org:8080/a;b=c,*?k=v&z={z}&x={x}&y={y}&t=%27": " http://tile.example.org:8080",
		"http://127.0.0.1:9/{z}{x}{y}":                                     " http://127.0.0.1:9",
		"https://xn--bcher-kva.example/{z}/{x}/{y}":                        " https://xn--bcher-kva.example",
	} {
		var tiles Tiles
		if err := tiles.UnmarshalText([]byte(template)); err != nil {
			t.Error(err)
			continue
		}
		response := get(t, newPage(t, Options{Tiles: tiles}), http.MethodGet, "/")
		checkSecurity(t, response, origin)
		if got := meta(t, body(t, response), "map-tiles"); got != template {
			t.Errorf("the page has the tiles %q, want %q", got, template)
		}
	}
}

func FuzzTilesKeepPolicy(f *testing.F) {
	f.Add("https://tile.example.org/{z}/{x}/{y}.png")
	f.Add("http://127.0.0.1:8080/{z}/{x}/{y};a?b='*'")
	source := regexp.MustCompile(`^https?://[a-z0-9.-]+(:[0-9]+)?$`)
	f.Fuzz(func(t *testing.T, template string) {
		var tiles Tiles
		if err := tiles.UnmarshalText([]byte(template)); err == nil && template != "" && !source.MatchString(tiles.origin) {
			t.Errorf("%q: the origin is %q", template, tiles.origin)
		}
	})
}
