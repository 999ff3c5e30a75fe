package browser

import (
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// With the tiles of another server, the map is made of them and names their source as a text. The page asks that server for images, and nobody
// else for anything.
func TestTiles(t *testing.T) {
	t.Parallel()
	var referrers sync.Map // of strings
	tiles := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		referrers.Store(r.Referer(), nil)
		tile := image.NewGray(image.Rect(0, 0, 256, 256))
		tile.SetGray(128, 128, color.Gray{Y: 255})
		w.Header().Set("Content-Type", "image/png")
		_ = png.Encode(w, tile) // The page may have left.
	}))
	t.Cleanup(tiles.Close)
	attribution := `Tiles of <b onclick="window.executed = true">the test</b>`
	s := startServer(t, "--map-tiles", tiles.URL+"/{z}/{x}/{y}.png", "--map-attribution", attribution)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.allow(`^request to another server: ` + regexp.QuoteMeta(tiles.URL) + `/\d+/\d+/\d+\.png$`)
	p.awaitLive()
	p.awaitFeatures(s)
	p.await(`[...document.querySelectorAll('img.leaflet-tile')].filter((tile) => tile.complete && tile.naturalWidth === 256).length >= 12`)
	p.await(`document.querySelector('.leaflet-control-attribution').textContent.includes(args[0])`, attribution)
	p.await(`document.querySelector('#tiles-problem').textContent === ''`)
	// Many tile servers want to know who asks, but the view is nobody else's business.
	for referrer := range referrers.Range {
		if want := s.url() + "/"; referrer != want {
			t.Errorf("the server of the tiles is told of %q, want %q", referrer, want)
		}
	}
}

// When tiles do not come, the page says so, and works without them.
func TestTilesFail(t *testing.T) {
	t.Parallel()
	tiles := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(tiles.Close)
	s := startServer(t, "--map-tiles", tiles.URL+"/{z}/{x}/{y}.png", "--map-attribution", "Tiles of the test")
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.allow(`^request to another server: ` + regexp.QuoteMeta(tiles.URL))
	p.allow(`^response: ` + regexp.QuoteMeta(tiles.URL) + `.*: status 404`)
	p.allow(`^log: network: .* status of 404`)
	p.awaitLive()
	p.awaitFeatures(s)
	p.await(`document.querySelector('#tiles-problem').textContent === args[0]`, "Tiles of "+strings.TrimPrefix(tiles.URL, "http://")+" cannot be loaded.")
	p.picture()
}
