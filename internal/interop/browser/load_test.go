package browser

import (
	"context"
	"image"
	"image/color"
	"image/png"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// newYork is a view of New York and New Jersey, where the server has features.
var newYork = view{zoom: 8, center: place{40.6, -74.2}}

// The page shows the features of its view, over HTTP/1.1 in clear and over HTTP/2 with TLS.
func TestPageLoads(t *testing.T) {
	t.Parallel()
	t.Run("in clear", func(t *testing.T) {
		t.Parallel()
		checkLoad(t, startServer(t), "http/1.1")
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, "--tls-cert", certificate, "--tls-key", key)
		checkLoad(t, s, "h2")
	})
}

func checkLoad(t *testing.T, s *server, protocol string) {
	t.Helper()
	before := place{40.7127, -74.0059}
	s.leave(before, "left before the page was loaded")
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.awaitFeatures(s)
	p.await(`document.querySelector('#map').dataset.locations === '1'`)
	p.awaitOutlines()
	if at := p.marker(before); p.count(at) != 1 {
		t.Errorf("the page has no %s", at)
	}
	for _, mark := range []string{"features-drawn", "notes-current"} {
		p.await(`performance.getEntriesByName(args[0]).length === 1`, mark)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, request := range p.requests {
		if request.url.Scheme != "data" && request.status != 0 && request.protocol != protocol {
			t.Errorf("%s came over %q, want %q", request.url, request.protocol, protocol)
		}
	}
}

// awaitFeatures waits until the page shows as many features as the server has in its view.
func (p *tab) awaitFeatures(s *server) {
	p.t.Helper()
	// The URL names the centre to a pixel.
	least, most := s.features(p.rectangle(-2)), s.features(p.rectangle(2))
	if least == 0 {
		p.t.Fatal("there are no features in view")
	}
	p.await(`args[0] <= document.querySelector('#map').dataset.features && document.querySelector('#map').dataset.features <= args[1]`, least, most)
}

// Without a view in the URL, the page shows all features that come with the server.
func TestDefaultView(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url())
	p.awaitLive()
	p.await(`document.querySelector('#map').dataset.features === String(args[0])`, s.features(everywhere))
}

// The page is as fast as docs/map.md says: reported, not asserted. Other tests do not run meanwhile.
func TestTimeToFeatures(t *testing.T) {
	s := startServer(t)
	const loads = 5
	drawn := make([]time.Duration, loads)
	current := make([]time.Duration, loads)
	for load := range loads {
		p := openTab(t, s.url()+"/"+newYork.hash())
		for mark, times := range map[string][]time.Duration{"features-drawn": drawn, "notes-current": current} {
			p.await(`performance.getEntriesByName(args[0]).length === 1`, mark)
			milliseconds := evaluate[float64](p, `performance.getEntriesByName(args[0])[0].startTime`, mark)
			times[load] = time.Duration(milliseconds * float64(time.Millisecond)).Round(time.Millisecond)
		}
		p.awaitFeatures(s)
	}
	slices.Sort(drawn)
	slices.Sort(current)
	t.Logf("from the start of the navigation, median (least, greatest) of %d: features drawn after %v (%v, %v), notes current after %v (%v, %v)",
		loads, drawn[loads/2], drawn[0], drawn[loads-1], current[loads/2], current[0], current[loads-1])
}

// marker returns the selector of the marker of a location.
func (p *tab) marker(at place) string {
	point := at.point()
	return `.place[data-latitude="` + strconv.Itoa(int(point.GetLatitude())) + `"][data-longitude="` + strconv.Itoa(int(point.GetLongitude())) + `"]`
}

// The URL has the view: a reload shows it again, and an edit of the URL moves the map.
func TestURLHasView(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	far := place{52.5, 13.4}
	s.leave(far, "far away")
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.awaitFeatures(s)

	// The notes follow the map, too.
	p.editURL(view{zoom: 11, center: far})
	p.await(`document.querySelector(args[0]) !== null`, p.marker(far))
	edited := view{zoom: 10, center: place{40.9, -74.4}}
	p.editURL(edited)
	p.awaitFeatures(s)

	// A drag to the left moves the map to the east.
	x, y := p.box("#map").center()
	p.drag(x, y, x-200, y)
	p.await(`location.hash !== args[0]`, edited.hash())
	p.awaitStill()
	p.awaitFeatures(s)
	moved := p.view()
	if moved.center.longitude <= edited.center.longitude {
		t.Errorf("a drag to the left moves the map from %v to %v", edited, moved)
	}

	features := evaluate[string](p, `document.querySelector('#map').dataset.features`)
	p.do(chromedp.Reload())
	p.awaitLive()
	p.await(`document.querySelector('#map').dataset.features === args[0]`, features)
	if reloaded := p.view(); reloaded != moved {
		t.Errorf("after a reload, the map is at %v, not at %v", reloaded, moved)
	}
	// The empty page, the first view, and those of the edits.
	if history := evaluate[int](p, `history.length`); history > 4 {
		t.Errorf("moving the map added to the history: it has %d entries", history)
	}
}

// A page for which the server has no room tries again, and does not ask the user to zoom in: it is live once there is room.
func TestTooManyFollowers(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--max-followers", "1")
	one := openTab(t, s.url()+"/"+newYork.hash())
	one.awaitLive()
	two := openTab(t, s.url()+"/"+newYork.hash())
	two.awaitConnection("reconnecting")
	one.close()
	two.awaitLive()
}

// editURL changes the view in the URL, as a user does in the address bar.
func (p *tab) editURL(v view) {
	p.t.Helper()
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, page.Navigate, page.NavigateParams{URL: p.origin + "/" + v.hash()})
		return err
	}))
}

// Around the antimeridian, the map shows the notes of both sides, and a click beyond it leaves a note on the other side.
func TestAntimeridian(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]float64{"from the west": 180, "from the east": -180} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			s.leave(place{-17, 179.9}, "west of the line")
			s.leave(place{-17.5, -179.8}, "east of the line")
			p := openTab(t, s.url()+"/"+view{zoom: 9, center: place{-17.2, line * 0.9997}}.hash())
			p.awaitLive()
			p.await(`document.querySelector('#map').dataset.locations === '2'`)
			p.clickAt(place{-17.2, line * 1.001})
			p.write("across the line")
			p.await(`document.querySelector('#map').dataset.locations === '3'`)
			for _, note := range s.notes(everywhere) {
				longitude, want := float64(note.GetLocation().GetLongitude())/1e7, line*1.001-2*line
				if note.GetText() == "across the line" && math.Abs(longitude-want) > 0.01 {
					t.Errorf("a click at the longitude %v left a note at %v, want %v", line*1.001, longitude, want)
				}
			}
		})
	}
}

// Zoomed out, the map shows the notes of the whole world.
func TestWholeWorld(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for i, at := range []place{{-17, 179.9}, {-17.5, -179.8}, {40.7, -74}, {0, 0}, {68, 20}, {-55, -68}} {
		s.leave(at, "around the world, "+strconv.Itoa(i))
	}
	p := openTab(t, s.url()+"/"+view{zoom: 2, center: place{10, 0}}.hash())
	p.awaitLive()
	p.await(`document.querySelector('#map').dataset.locations === '6'`)
	p.await(`document.querySelector('#map').dataset.features === String(args[0])`, s.features(everywhere))
	p.awaitOutlines()
}

// awaitOutlines waits until the base map is drawn: its names are.
func (p *tab) awaitOutlines() {
	p.t.Helper()
	p.await(`document.querySelector('#map .label') !== null`)
}

// With the tiles of another server, the map is made of them and names their source as a text. The page asks that server for images, and nobody
// else for anything.
func TestTiles(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	tiles := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if referrer := r.Referer(); referrer != "" {
			t.Errorf("the server of the tiles is told of %q", referrer)
		}
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
	if asked.Load() == 0 {
		t.Error("the page did not ask for tiles")
	}
}

// A view with more locations than the server sends is too large, and one that is zoomed in is not.
func TestTooManyLocations(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--max-snapshot", "10")
	for i := range 11 {
		s.leave(place{40 + float64(i)/10, -74}, "one of many")
	}
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitConnection("too-many")
	p.awaitFeatures(s)
	p.await(`/zoom in/i.test(document.querySelector('#status').textContent)`)
	p.picture()
	for p.view().zoom < 11 {
		before := evaluate[string](p, `location.hash`)
		p.click(".leaflet-control-zoom-in")
		p.await(`location.hash !== args[0]`, before)
	}
	p.awaitLive()
	p.await(`Number(document.querySelector('#map').dataset.locations) > 0`)
}
