package browser

import (
	"context"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// click clicks on an element, where it is on the screen.
func (p *tab) click(selector string) {
	p.t.Helper()
	x, y := p.box(selector).center()
	p.do(chromedp.MouseClickXY(x, y))
}

// clickAt clicks on the map at a place.
func (p *tab) clickAt(at place) {
	p.t.Helper()
	x, y := p.pixel(at)
	p.do(chromedp.MouseClickXY(x, y))
}

// tap touches an element, where it is on the screen.
func (p *tab) tap(selector string) {
	p.t.Helper()
	x, y := p.box(selector).center()
	p.do(chromedp.TapXY(x, y))
}

// drag drags the map with the mouse, in steps as a hand does, and holds still before it lets go: the map then does not move on.
func (p *tab) drag(fromX, fromY, toX, toY float64) {
	p.t.Helper()
	const steps = 20
	actions := []chromedp.Action[chromedp.Void]{
		chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, fromX, fromY),
		chromedp.MouseEvent(input.DispatchMouseEventTypeMousePressed, fromX, fromY, chromedp.Button("left"), chromedp.ClickCount(1)),
	}
	for step := range steps {
		share := float64(step+1) / steps
		actions = append(actions, chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, fromX+(toX-fromX)*share, fromY+(toY-fromY)*share, chromedp.Button("left")))
	}
	actions = append(actions, chromedp.MouseEvent(input.DispatchMouseEventTypeMouseReleased, toX, toY, chromedp.Button("left"), chromedp.ClickCount(1)))
	p.do(actions...)
}

// scroll scrolls down over an element, by pixels, with the wheel or with a finger.
func (p *tab) scroll(selector string, down float64) {
	p.t.Helper()
	x, y := p.box(selector).center()
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, input.SynthesizeScrollGesture, input.SynthesizeScrollGestureParams{X: x, Y: y, YDistance: -down})
		return err
	}))
}

// hover moves the mouse away from a point of the map, until there is no tooltip, and back to it, until there is one.
func (p *tab) hover(x, y float64) {
	p.t.Helper()
	const away = 20 // pixels
	for _, want := range []struct {
		x, y     float64
		tooltips int
	}{{x + away, y + away, 0}, {x, y, 1}} {
		for deadline := time.Now().Add(patience); p.count(".leaflet-tooltip") != want.tooltips; {
			if time.Now().After(deadline) {
				p.t.Fatalf("with the mouse at %v, %v there are %d tooltips, want %d", want.x, want.y, p.count(".leaflet-tooltip"), want.tooltips)
			}
			// Twice, since the map does not look at each movement.
			p.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, want.x+1, want.y), chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, want.x, want.y))
		}
	}
}

// keys presses keys one after another. A key that the page handles types nothing, as on a keyboard.
func (p *tab) keys(keys string) {
	p.t.Helper()
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		for _, key := range keys {
			events := kb.Encode(key)
			down, up := events[0], events[len(events)-1]
			if len(events) == 3 { // It types something.
				down.Type, down.Text, down.UnmodifiedText = input.DispatchKeyEventTypeKeyDown, events[1].Text, events[1].UnmodifiedText
			}
			for _, event := range []*input.DispatchKeyEventParams{down, up} {
				if _, err := cdp.Call(ctx, target, input.DispatchKeyEvent, *event); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

// tabTo presses Tab until an element has the focus.
func (p *tab) tabTo(selector string) {
	p.t.Helper()
	var passed []string
	for range 60 {
		if evaluate[bool](p, `document.activeElement?.matches(args[0]) ?? false`, selector) {
			return
		}
		p.keys(kb.Tab)
		passed = append(passed, evaluate[string](p, `document.activeElement?.id || document.activeElement?.className || document.activeElement?.tagName || ''`))
	}
	p.t.Fatalf("Tab does not come to %s: it passes %q", selector, passed)
}

// awaitFocus waits until an element has the focus.
func (p *tab) awaitFocus(selector string) {
	p.t.Helper()
	p.await(`document.activeElement?.matches(args[0])`, selector)
}

// write types a note into the open panel, sends it, and waits until it is left.
func (p *tab) write(text string) {
	p.t.Helper()
	p.awaitFocus("#text")
	p.keys(text)
	p.click("#send")
	p.awaitLeft(text)
}

// awaitLeft waits until the newest note of the open place has a text, and the form is ready for another one.
func (p *tab) awaitLeft(text string) {
	p.t.Helper()
	p.await(`document.querySelector('#log > li:first-child .text')?.textContent === args[0] && document.querySelector('#text').value === ''`, text)
}
