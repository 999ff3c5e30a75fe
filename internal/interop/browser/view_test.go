package browser

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"testing"

	"example.com/routeguide/gen/routeguide"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// newYork is a view of New York and New Jersey, where the server has features.
var newYork = view{zoom: 8, center: place{40.6, -74.2}}

// A view is what the URL says of the map: the zoom, and the location of its centre.
type view struct {
	zoom   float64
	center place
}

func (v view) hash() string {
	return fmt.Sprintf("#map=%v/%v/%v", v.zoom, v.center.latitude, v.center.longitude)
}

// view returns the view that the page's URL says.
func (p *tab) view() view {
	p.t.Helper()
	hash := evaluate[string](p, `location.hash`)
	var v view
	if _, err := fmt.Sscanf(hash, "#map=%f/%f/%f", &v.zoom, &v.center.latitude, &v.center.longitude); err != nil {
		p.t.Fatalf("the URL ends with %q: %v", hash, err)
	}
	return v
}

// editURL changes the view in the URL, as a user does in the address bar.
func (p *tab) editURL(v view) {
	p.t.Helper()
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, page.Navigate, page.NavigateParams{URL: p.origin + "/" + v.hash()})
		return err
	}))
}

// A box is the place of an element in the viewport, in CSS pixels.
type box struct {
	Left   float64 `json:"left"`
	Top    float64 `json:"top"`
	Width  float64 `json:"width"`
	Height float64 `json:"height"`
}

func (b box) center() (x, y float64) {
	return b.Left + b.Width/2, b.Top + b.Height/2
}

// box returns the place of the first element that a selector finds.
func (p *tab) box(selector string) box {
	p.t.Helper()
	p.await(`document.querySelector(args[0]) !== null`, selector)
	return evaluate[box](p, `document.querySelector(args[0]).getBoundingClientRect().toJSON()`, selector)
}

// pixel returns where a place is in the viewport, by the Mercator projection of web maps, in which the world has 256·2^zoom pixels.
func (p *tab) pixel(at place) (x, y float64) {
	p.t.Helper()
	v := p.view()
	size := 256 * math.Exp2(v.zoom)
	project := func(p place) (x, y float64) {
		sin := math.Sin(p.latitude * math.Pi / 180)
		return size * (p.longitude/360 + 0.5), size * (0.5 - math.Atanh(sin)/(2*math.Pi))
	}
	left, top := p.box("#map").center()
	centerX, centerY := project(v.center)
	x, y = project(at)
	return left + x - centerX, top + y - centerY
}

// rectangle returns the part of the world that the page shows, with a margin in pixels.
func (p *tab) rectangle(margin float64) *routeguide.Rectangle {
	p.t.Helper()
	v, b := p.view(), p.box("#map")
	size := 256 * math.Exp2(v.zoom)
	latitude := func(y float64) float64 { return math.Asin(math.Tanh(2*math.Pi*(0.5-y/size))) * 180 / math.Pi }
	centerX := size * (v.center.longitude/360 + 0.5)
	centerY := size * (0.5 - math.Atanh(math.Sin(v.center.latitude*math.Pi/180))/(2*math.Pi))
	longitude := func(x float64) float64 { return (x/size - 0.5) * 360 }
	return &routeguide.Rectangle{
		Lo: place{latitude(centerY + b.Height/2 + margin), longitude(centerX - b.Width/2 - margin)}.point(),
		Hi: place{latitude(centerY - b.Height/2 - margin), longitude(centerX + b.Width/2 + margin)}.point(),
	}
}

// awaitStill waits until the map has not moved for 30 frames.
func (p *tab) awaitStill() {
	p.t.Helper()
	evaluate[bool](p, `new Promise((resolve) => {
		const pane = document.querySelector('.leaflet-map-pane')
		let last = '', still = 0
		const frame = () => {
			const now = location.hash + pane.style.transform
			still = now === last ? still + 1 : 0
			last = now
			if (still === 30) { resolve(true) } else { requestAnimationFrame(frame) }
		}
		frame()
	})`)
}

// Without a view in the URL, the page shows all features that come with the server.
func TestDefaultView(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url())
	p.awaitLive()
	p.await(`document.querySelector('#map').dataset.features === String(args[0])`, s.features(everywhere))
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
