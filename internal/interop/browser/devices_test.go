package browser

import (
	"context"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// desktop is a window without touch.
var desktop = chromedp.EmulateViewport(1280, 800)

// phone is the screen of a phone, with touch.
var phone = chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(3), chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulatePortrait)

// media emulates a preference of the user.
func media(name, value string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: name, Value: value}}})
		return err
	})
}

// On a phone, taps do what clicks do, everything fits, and buttons are large enough for fingers.
func TestPhone(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.leave(harbour, "from a desk")
	p := openTab(t, s.url()+"/"+newYork.hash(), phone)
	p.awaitLive()
	p.awaitFeatures(s)
	p.checkLayout()
	p.picture()
	p.tap(p.marker(harbour))
	p.await(`document.querySelector('#log > li .text')?.textContent === 'from a desk'`)
	p.checkLayout()
	p.checkUsable()
	p.tap("#text")
	p.awaitFocus("#text")
	p.keys("from the road")
	p.tap("#send")
	p.awaitLeft("from the road")
	p.picture()
	for _, selector := range []string{"#close", "#send", "#text", ".leaflet-control-zoom-in", ".leaflet-control-zoom-out"} {
		if box := p.box(selector); box.Width < 24 || box.Height < 24 {
			t.Errorf("%s has %v by %v pixels, want at least 24 by 24 (WCAG 2.2, target size)", selector, box.Width, box.Height)
		}
	}
	p.tap("#close")
	p.await(`document.querySelector('#panel').checkVisibility() === false`)

	x, y := p.box("#map").center()
	p.do(chromedp.TapXY(x, y+100))
	p.await(`document.querySelector('#panel').checkVisibility()`)
	p.awaitFocus("#text")
	p.keys("after a tap on the map")
	p.tap("#send")
	p.awaitLeft("after a tap on the map")
	p.checkLayout()
}

// Users who prefer dark pages get one.
func TestDarkMode(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.leave(harbour, "at night")
	brightness := func(p *tab, selector string) int {
		return evaluate[int](p, `getComputedStyle(document.querySelector(args[0])).backgroundColor.match(/\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b)`, selector)
	}
	for scheme, isDark := range map[string]bool{"dark": true, "light": false} {
		p := openTab(t, s.url()+"/"+newYork.hash(), media("prefers-color-scheme", scheme))
		p.awaitLive()
		p.awaitFeatures(s)
		p.click(p.marker(harbour))
		p.await(`document.querySelectorAll('#log > li').length === 1`)
		for _, selector := range []string{"#map", "#panel", "#text"} {
			if got := brightness(p, selector); (got < 3*128) != isDark {
				t.Errorf("in the color scheme %s, the sum of the colours of %s is %d", scheme, selector, got)
			}
		}
	}
}

// Users who prefer reduced motion see a note arrive without an animation, and the map zooms without one.
func TestReducedMotion(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for preference, moves := range map[string]bool{"reduce": false, "no-preference": true} {
		p := openTab(t, s.url()+"/"+newYork.hash(), media("prefers-reduced-motion", preference))
		p.awaitLive()
		p.awaitFeatures(s)
		p.script(`
			window.motions = []
			for (const kind of ['animationstart', 'transitionrun']) {
				document.addEventListener(kind, (event) => window.motions.push(kind + ' ' + (event.animationName ?? event.propertyName)), true)
			}
		`)
		at := place{harbour.latitude, harbour.longitude + map[bool]float64{true: 0.5}[moves]}
		marker := p.marker(at) + ".arrived"
		p.watch(marker)
		s.leave(at, "a note comes")
		p.awaitSeen(marker)
		before := evaluate[string](p, `location.hash`)
		p.click(".leaflet-control-zoom-in")
		p.await(`location.hash !== args[0]`, before)
		if moves {
			p.await(`window.motions.length > 0`)
		}
		p.awaitStill()
		if motions := evaluate[[]string](p, `window.motions`); !moves && len(motions) != 0 {
			t.Errorf("with reduced motion, there were %q", motions)
		}
	}
}
