package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/chromedp"
)

// A tab is a tab of the browser with the map page. Its methods fail the test on errors. They may be called by the
// goroutine of the test alone.
type tab struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // It is the handle of the tab in the library that drives the browser.
	// origin is the server's: scheme, host and port.
	origin string
	// close takes a picture, fails the test if there were problems, and closes the tab. The end of the test calls it, too.
	close func()

	dialogs sync.WaitGroup // goroutines that dismiss dialogs

	mu       sync.Mutex // guards the rest
	requests []*request
	problems []string         // what must not happen, in the order in which it happened
	allowed  []*regexp.Regexp // problems that the test expects
	changed  chan struct{}    // closed and replaced when requests or problems change
}

// openTab opens a page in a new profile, once it has been set up. The end of the test takes a picture, checks that there was no problem,
// and closes the tab.
func openTab(t *testing.T, url string, setup ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	return newTab(t, chromium, url, url, setup, chromedp.WithNewBrowserContext())
}

// another opens a page in another tab of the same profile.
func (p *tab) another(url string, setup ...chromedp.Action[chromedp.Void]) *tab {
	p.t.Helper()
	return newTab(p.t, p.ctx, url, url, setup)
}

// newTab opens a tab with an address, which may make requests to the server with another one.
func newTab(t *testing.T, parent context.Context, server, address string, setup []chromedp.Action[chromedp.Void], options ...chromedp.ContextOption) *tab {
	t.Helper()
	parsed, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	p := &tab{t: t, origin: parsed.Scheme + "://" + parsed.Host, changed: make(chan struct{})}
	ctx, cancel := chromedp.NewContext(parent, append(options, chromedp.WithListener(p.observe))...)
	p.ctx = ctx
	p.close = sync.OnceFunc(func() {
		t.Helper()
		p.picture()
		p.check()
		cancel()
		p.dialogs.Wait()
	})
	t.Cleanup(p.close)
	// The context of its first use ends the tab.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		// chromedp mirrors the DOM, which nobody needs here, and which is slow with tens of thousands of elements.
		_, err := cdp.Call(ctx, target, dom.Disable, cdp.Empty{})
		if err == nil {
			_, err = cdp.Call(ctx, target, audits.Enable, cdp.Empty{})
		}
		return err
	}))
	p.do(desktop)
	p.do(setup...)
	p.do(chromedp.Navigate(address))
	return p
}

// do runs steps in the tab.
func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// evaluate returns the value of a JavaScript expression, or of its promise.
func evaluate[T any](p *tab, expression string, args ...any) T {
	p.t.Helper()
	value, err := tryEvaluate[T](p, expression, args...)
	if err != nil {
		p.t.Fatalf("%v\nof %s", err, expression)
	}
	return value
}

// tryEvaluate is evaluate for expressions that may fail. The expression finds args, encoded as JSON, in the variable args.
func tryEvaluate[T any](p *tab, expression string, args ...any) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	encoded, err := json.Marshal(args)
	if err != nil {
		p.t.Fatal(err)
	}
	return chromedp.Run(ctx, chromedp.Evaluate[T](
		fmt.Sprintf("(async (args) => (%s))(%s)", expression, encoded), chromedp.EvalAwaitPromise))
}

// script runs statements of JavaScript, which find args in the variable args.
func (p *tab) script(statements string, args ...any) {
	p.t.Helper()
	evaluate[chromedp.Void](p, "(() => {"+statements+"})()", args...)
}

// await waits until a JavaScript expression is truthy.
func (p *tab) await(expression string, args ...any) {
	p.t.Helper()
	condition := fmt.Sprintf(`new Promise((resolve) => {
		const check = () => { if (%s) { resolve(true) } else { setTimeout(check, 20) } }
		check()
	})`, expression)
	if _, err := tryEvaluate[bool](p, condition, args...); err != nil {
		if !errors.Is(err, context.DeadlineExceeded) {
			p.t.Fatalf("await %s: %v", expression, err)
		}
		p.t.Fatalf("not within %v: %s %v; the page says: %s", patience, expression, args, p.describe())
	}
}

// describe returns what the page says of itself.
func (p *tab) describe() string {
	description, err := tryEvaluate[string](p, `JSON.stringify({
		location: location.href,
		connection: document.documentElement.dataset.connection,
		status: document.querySelector('#status')?.textContent,
		map: {...document.querySelector('#map')?.dataset},
		leaving: document.querySelector('#leaving')?.textContent,
		log: document.querySelector('#log')?.textContent.slice(0, 500),
	})`)
	if err != nil {
		return err.Error()
	}
	return description
}

// awaitConnection waits for a state of the connection.
func (p *tab) awaitConnection(state string) {
	p.t.Helper()
	p.await(`document.documentElement.dataset.connection === args[0]`, state)
}

// awaitLive waits until the page is connected and shows what the server has.
func (p *tab) awaitLive() {
	p.t.Helper()
	p.awaitConnection("live")
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

// awaitOutlines waits until the outlines of countries and states are drawn: their names are.
func (p *tab) awaitOutlines() {
	p.t.Helper()
	p.await(`document.querySelector('#map .label:not(.county)') !== null`)
}

// awaitHidden waits until an element cannot be seen.
func (p *tab) awaitHidden(selector string) {
	p.t.Helper()
	p.await(`!document.querySelector(args[0]).checkVisibility()`, selector)
}

// count returns the number of elements that a selector finds.
func (p *tab) count(selector string) int {
	p.t.Helper()
	return evaluate[int](p, `document.querySelectorAll(args[0]).length`, selector)
}

// log returns the texts of the open place, newest first.
func (p *tab) log() []string {
	p.t.Helper()
	return evaluate[[]string](p, `[...document.querySelectorAll('#log > li')].map((li) => li.querySelector('.text').textContent)`)
}

// marker returns the selector of the marker of a location.
func (p *tab) marker(at place) string {
	point := at.point()
	return `.place[data-latitude="` + strconv.Itoa(int(point.GetLatitude())) + `"][data-longitude="` + strconv.Itoa(int(point.GetLongitude())) + `"]`
}
