package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// awaitPlace waits until a place is open, and in the URL.
func (p *tab) awaitPlace(at place) {
	p.t.Helper()
	p.await(`document.querySelector('#panel').checkVisibility() && location.hash.endsWith(args[0])`, fmt.Sprintf("&place=%v,%v", at.latitude, at.longitude))
}

// awaitNoPlace waits until no place is open, nor in the URL.
func (p *tab) awaitNoPlace() {
	p.t.Helper()
	p.await(`!document.querySelector('#panel').checkVisibility() && !location.hash.includes('place')`)
}

// The URL has the open place, also for a reload and for others. Back closes it, Forward opens it again, and neither moves the map. Places that are opened
// one after another are one entry of the history, and closing the last one takes it away.
func TestURLHasPlace(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.leave(harbour, "at the harbour")
	s.leave(atSea, "at sea")
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	entries := func() int { return evaluate[int](p, `history.length`) }
	before := entries()
	p.click(p.marker(harbour))
	p.awaitPlace(harbour)
	p.click(p.marker(atSea))
	p.awaitPlace(atSea)
	if got := entries(); got != before+1 {
		t.Errorf("two places added %d entries to the history", got-before)
	}
	x, y := p.box("#map").center()
	p.drag(x, y, x+50, y+50)
	p.awaitStill()
	moved := p.view()
	unmoved := func() {
		t.Helper()
		if got := p.view(); got != moved {
			t.Errorf("the map moved from %v to %v", moved, got)
		}
	}
	p.script(`history.back()`)
	p.awaitNoPlace()
	unmoved()
	p.script(`history.forward()`)
	p.awaitPlace(atSea)
	p.do(chromedp.Reload())
	p.awaitPlace(atSea)
	p.await(`document.querySelector('#log > li .text')?.textContent === 'at sea'`)
	p.keys(kb.Escape)
	p.awaitNoPlace()
	unmoved()
	// Closed and opened again, before the history has followed.
	p.click(p.marker(harbour))
	p.awaitPlace(harbour)
	p.script(`document.querySelector('#close').click(); document.querySelector(args[0]).click()`, p.marker(atSea))
	p.awaitPlace(atSea)
	if got := entries(); got != before+1 {
		t.Errorf("places that were opened and closed added %d entries to the history", got-before)
	}
	p.script(`history.back()`)
	p.awaitNoPlace()

	link := evaluate[string](p, `location.href`) + fmt.Sprintf("&place=%v,%v", harbour.latitude, harbour.longitude)
	other := openTab(t, link)
	other.awaitPlace(harbour)
	other.await(`document.querySelector('#log > li .text')?.textContent === 'at the harbour'`)
	other.click("#close")
	other.awaitNoPlace()
	// By hand.
	other.script(`location.hash = args[0]`, fmt.Sprintf("#map=9/40.1/-73.3&place=%v,%v", atSea.latitude, atSea.longitude))
	other.awaitPlace(atSea)
	if got, want := other.view(), (view{9, atSea}); got != want {
		t.Errorf("the map is at %v, want %v", got, want)
	}
	other.script(`location.hash = args[0]`, newYork.hash())
	other.awaitNoPlace()
	if got := other.view(); got != newYork {
		t.Errorf("the map is at %v, want %v", got, newYork)
	}
}

// A double click zooms, and opens no place, on a feature neither.
func TestDoubleClickOnlyZooms(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.watch("#panel:not([hidden])")
	x, y := p.pixel(atSea)
	p.do(chromedp.MouseClickXY(x, y), chromedp.MouseClickXY(x, y, chromedp.ClickCount(2)))
	p.await(`location.hash.startsWith('#map=9/')`)
	p.awaitStill()
	// What the clicks of now open, those of before would have opened.
	p.click(".leaflet-control-zoom-out")
	p.await(`location.hash.startsWith('#map=8/')`)
	p.awaitStill()
	p.await(`document.querySelector('.here') === null`)
	if opened := evaluate[int](p, `window.watched['#panel:not([hidden])']`); opened != 0 {
		t.Error("a double click opened a place")
	}
	p.clickAt(atSea)
	p.awaitFocus("#text")
}

// A double tap zooms, too, and opens no place.
func TestDoubleTapOnlyZooms(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash(), phone)
	p.awaitLive()
	p.watch("#panel:not([hidden])")
	x, y := p.pixel(place{40.2, -73.9})
	p.do(chromedp.TapXY(x, y), chromedp.TapXY(x, y))
	p.await(`location.hash.startsWith('#map=9/')`)
	p.awaitStill()
	p.await(`document.querySelector('.here') === null`)
	if opened := evaluate[int](p, `window.watched['#panel:not([hidden])']`); opened != 0 {
		t.Error("a double tap opened a place")
	}
}

// The panel that was opened from the list of what is in view gives the focus back to the entry, although opening has moved the map. The list has the
// features from the centre on.
func TestListKeepsFocus(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.awaitFeatures(s)
	p.click("#list summary")
	p.await(`document.querySelectorAll('#list-features button').length === 40`)
	entry := evaluate[string](p, `document.querySelector('#list-features li:nth-child(5) button').dataset.place`)
	p.script(`window.entry = document.querySelector('#list-features li:nth-child(5) button'); window.entry.focus()`)
	p.keys(kb.Enter)
	p.await(`document.querySelector('#panel').checkVisibility()`)
	x, y := p.box("#map").center()
	p.drag(x, y, x+20, y)
	p.await(`!window.entry.isConnected`) // The entries were made anew.
	p.script(`document.querySelector('#text').focus()`)
	p.keys(kb.Escape)
	p.awaitHidden("#panel")
	p.awaitFocus(`[data-place="` + entry + `"]`)

	distances := evaluate[[]float64](p, `[...document.querySelectorAll('#list-features button')].map(({ dataset }) => {
		const [latitude, longitude] = dataset.place.split(',').map((e7) => e7 / 1e7)
		const [, lat, lng] = location.hash.match(/\/([^/]+)\/([^&]+)/).map(Number)
		return Math.hypot(latitude - lat, (longitude - lng) * Math.cos(lat * Math.PI / 180))
	})`)
	for i, distance := range distances {
		if i > 0 && distance < distances[i-1]-0.01 {
			t.Errorf("entry %d of the list is %v degrees from the centre, the one before it %v", i, distance, distances[i-1])
		}
	}
}

// Without a view in the URL, the page shows the features of a server that has others than those by default, and without any, the world. A view in the URL
// stays, whatever is there.
func TestOtherFeatures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		features []place
		hash     string
		zoom     float64
	}{
		"of Berlin":              {[]place{{52.4, 13.1}, {52.6, 13.7}}, "", 10},
		"none":                   {nil, "", 2},
		"none in the URL's view": {[]place{{52.4, 13.1}, {52.6, 13.7}}, newYork.hash(), 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, withFeatures(t, test.features...)...)
			p := openTab(t, s.url()+"/"+test.hash)
			p.awaitLive()
			p.await(`performance.getEntriesByName('features-drawn').length === 1`)
			want := len(test.features)
			if test.hash != "" {
				want = 0
			}
			p.await(`document.querySelector('#map').dataset.features === String(args[0])`, want)
			if got := p.view(); got.zoom != test.zoom {
				t.Errorf("the map is at %v, want the zoom %v", got, test.zoom)
			}
		})
	}
}

// In a window that is wider than the world, each copy of it has the notes and the features.
func TestCopiesOfTheWorld(t *testing.T) {
	t.Parallel()
	s := startServer(t, withFeatures(t, place{-35, -20})...)
	s.leave(place{10, -20}, "in the Atlantic")
	for _, copied := range []place{{-35, -20}, {-35, 340}} {
		p := openTab(t, s.url()+"/"+view{zoom: 2, center: place{0, 160}}.hash(), chromedp.EmulateViewport(1900, 800))
		p.awaitLive()
		p.await(`document.querySelectorAll('.place').length === 2`)
		p.await(`document.querySelector('#map').dataset.locations === '1' && document.querySelector('#map').dataset.features === '1'`)
		p.hover(p.pixel(copied))
	}
}

// In low windows, such as a phone on its side, or a desktop at 400 %, all of the card and the panel can be reached, also when the list is open.
func TestLowWindows(t *testing.T) {
	t.Parallel()
	for name, viewport := range map[string]chromedp.Action[chromedp.Void]{
		"phone on its side": chromedp.EmulateViewport(844, 390, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateLandscape),
		"400 percent":       chromedp.EmulateViewport(320, 256),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			s.leave(harbour, strings.Repeat("a long note ", 100))
			p := openTab(t, s.url()+"/"+newYork.hash()+fmt.Sprintf("&place=%v,%v", harbour.latitude, harbour.longitude), viewport)
			p.awaitLive()
			p.awaitPlace(harbour)
			p.await(`document.querySelectorAll('#log > li').length > 0`)
			p.await(`(({ top, bottom }) => top >= 0 && top < innerHeight)(document.querySelector('#place').getBoundingClientRect())`)
			top := p.box("#place").Top
			p.scroll("#place", 20)
			p.await(`document.querySelector('#place').getBoundingClientRect().top < args[0]`, top)
			for _, open := range []bool{false, true} {
				p.script(`document.querySelector('#list').open = args[0]`, open)
				if open {
					p.await(`document.querySelectorAll('#list-features button').length === 40`)
				}
				p.checkLayout()
				p.checkUsable()
				p.checkReachable("#list summary", "#text", "#send", "#close", "#log > li:last-child time")
				p.picture()
			}
			if visible := evaluate[float64](p, `document.querySelector('#text').getBoundingClientRect().height`); visible < 60 {
				t.Errorf("the field of the text is %v pixels high", visible)
			}
			p.checkReachable("#text")
			p.click("#text")
			p.write("from a low window: " + name)
		})
	}
}

// checkReachable fails the test unless elements can be scrolled into the window, with the wheel or a finger: what is clipped does not scroll.
func (p *tab) checkReachable(selectors ...string) {
	p.t.Helper()
	for _, selector := range selectors {
		if !evaluate[bool](p, `(() => {
			const element = document.querySelector(args[0])
			element.scrollIntoView({ block: 'nearest', behavior: 'instant' })
			const { left, top, right, bottom } = element.getBoundingClientRect()
			const hit = document.elementFromPoint((left + right) / 2, (top + bottom) / 2)
			return top >= -1 && bottom <= innerHeight + 1 && element.contains(hit)
		})()`, selector) {
			p.t.Errorf("%s cannot be reached", selector)
		}
	}
	if evaluate[bool](p, `[...document.querySelectorAll('body, main, #map')].some(({ scrollTop }) => scrollTop !== 0) || document.documentElement.scrollTop !== 0`) {
		p.t.Error("the page itself was scrolled, which no user can do")
	}
}

// On a phone, the name that a tap on a feature shows does not stay over the panel.
func TestTapLeavesNoTooltip(t *testing.T) {
	t.Parallel()
	at := place{newYork.center.latitude + 0.1, newYork.center.longitude}
	s := startServer(t, withFeatures(t, at)...)
	p := openTab(t, s.url()+"/"+newYork.hash(), phone)
	p.awaitLive()
	p.await(`document.querySelector('#map').dataset.features === '1'`)
	x, y := p.pixel(at)
	p.do(chromedp.TapXY(x, y))
	p.awaitPlace(at)
	p.await(`document.querySelector('#place').textContent === 'a feature'`)
	p.await(`document.querySelector('.leaflet-tooltip') === null`)
	p.picture()
}
