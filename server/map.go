package main

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/internal/clientlimit"
	"example.com/routeguide/web"
)

// maxMapResponses is the quota of responses of the map page in flight. A browser has six at a time.
const maxMapResponses = 1000

// mapFlags are the map page and its tile server.
type mapFlags struct {
	NoMap          bool      `name:"no-map" help:"Serve no map page at /."`
	MapTiles       web.Tiles `placeholder:"URL" help:"Draw the map with the tiles of this server, such as https://tile.example.org/{z}/{x}/{y}.png. Browsers that open the page fetch them there."`
	MapAttribution string    `placeholder:"TEXT" help:"Name the source of the tiles on the map, as tile servers ask for. Goes with --map-tiles."`
}

func (f *mapFlags) check() error {
	hasTiles := f.MapTiles != web.Tiles{}
	switch {
	case hasTiles != (f.MapAttribution != ""):
		return command.Usagef("--map-tiles and --map-attribution go together: tile servers ask to be named on the map")
	case f.NoMap && hasTiles:
		return command.Usagef("--map-tiles does not go with --no-map")
	case strings.ContainsFunc(f.MapAttribution, unicode.IsControl):
		return command.Usagef("--map-attribution %q: want a line of text", f.MapAttribution)
	default:
		return nil
	}
}

// withMap returns a handler that serves the map page, and calls next with all other requests. One client may have the given share of the
// responses in flight; 0 is no limit.
func (f *mapFlags) withMap(next http.Handler, share float64, stallTimeout time.Duration) (http.Handler, error) {
	if f.NoMap {
		return next, nil
	}
	responses := clientlimit.NewQuota(maxMapResponses, clientlimit.Share(maxMapResponses, share))
	return web.NewHandler(web.Options{
		Tiles:        f.MapTiles,
		Attribution:  f.MapAttribution,
		StallTimeout: stallTimeout,
		Admit: func(request *http.Request) (release func(), ok bool) {
			if responses.Acquire(request.RemoteAddr, 1) != nil {
				return nil, false
			}
			return func() { responses.Release(request.RemoteAddr, 1) }, true
		},
	}, next)
}

// mapURL returns the URL of the map page for a browser on this machine.
func mapURL(listen string, address net.Addr, isTLS bool) string {
	host, _, _ := net.SplitHostPort(listen) // It was checked.
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // Browsers cannot open the address that stands for all.
	}
	_, port, _ := net.SplitHostPort(address.String()) // A listener's address has both.
	page := url.URL{Scheme: "http", Host: net.JoinHostPort(host, port), Path: "/"}
	if isTLS {
		page.Scheme = "https"
	}
	return page.String()
}
