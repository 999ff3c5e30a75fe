package browser

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/inspector"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The paths of the RPCs that the page calls.
const (
	listFeatures = "/routeguide.RouteGuide/ListFeatures"
	leaveNote    = "/routeguide.v1.NoteService/LeaveNote"
	followNotes  = "/routeguide.v1.NoteService/FollowNotes"
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

// A request is one that a page made.
type request struct {
	id       network.RequestID
	url      *url.URL
	body     []byte
	json     bool   // the encoding of an RPC's messages
	protocol string // of the connection, such as h2; empty until there is a response
	status   int64
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

// awaitLive waits until the page is connected and shows what the server has.
func (p *tab) awaitLive() {
	p.t.Helper()
	p.awaitConnection("live")
}

// awaitConnection waits for a state of the connection.
func (p *tab) awaitConnection(state string) {
	p.t.Helper()
	p.await(`document.documentElement.dataset.connection === args[0]`, state)
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

// observe records the requests and problems of the tab. The library calls it, and waits for it.
func (p *tab) observe(event any) {
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		p.observeRequest(event)
	case *network.EventResponseReceived:
		p.observeResponse(event)
	case *network.EventLoadingFailed:
		if !event.Canceled { // By the page itself, or because it was left.
			p.problemf("request failed: %s: %s %s", p.requestURL(event.RequestID), event.ErrorText, event.BlockedReason)
		}
	case *runtime.EventConsoleAPICalled:
		if event.Type != runtime.ConsoleAPICalledTypeError && event.Type != runtime.ConsoleAPICalledTypeWarning && event.Type != runtime.ConsoleAPICalledTypeAssert {
			return
		}
		var words []string
		for _, arg := range event.Args {
			words = append(words, cmp.Or(string(arg.Value), arg.Description))
		}
		p.problemf("console.%s: %s", event.Type, strings.Join(words, " "))
	case *runtime.EventExceptionThrown:
		text := event.ExceptionDetails.Text
		if exception := event.ExceptionDetails.Exception; exception != nil {
			text += " " + exception.Description
		}
		p.problemf("uncaught exception: %s", text)
	case *log.EventEntryAdded:
		if event.Entry.Level == log.EntryLevelError || event.Entry.Level == log.EntryLevelWarning {
			p.problemf("log: %s: %s %s", event.Entry.Source, event.Entry.Text, event.Entry.URL)
		}
	case *audits.EventIssueAdded:
		details, err := json.Marshal(event.Issue.Details)
		if err != nil {
			details = []byte(err.Error())
		}
		p.problemf("issue: %s %s", event.Issue.Code, details)
	case *inspector.EventTargetCrashed:
		p.problemf("the tab crashed")
	case *page.EventJavascriptDialogOpening:
		p.problemf("dialog: %s", event.Message)
		p.dialogs.Go(func() {
			_, _ = chromedp.Call(p.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{})
		})
	}
}

func (p *tab) observeRequest(event *network.EventRequestWillBeSent) {
	parsed, err := url.Parse(event.Request.URL)
	if err != nil {
		p.problemf("request to %q: %v", event.Request.URL, err)
		return
	}
	var body bytes.Buffer
	for _, entry := range event.Request.PostDataEntries {
		body.Write(entry.Bytes)
	}
	kind, _ := event.Request.Headers["Content-Type"].(string)
	p.mu.Lock()
	p.requests = append(p.requests, &request{id: event.RequestID, url: parsed, body: body.Bytes(), json: strings.Contains(kind, "json")})
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if parsed.Scheme != "data" && parsed.Scheme+"://"+parsed.Host != p.origin {
		p.problemf("request to another server: %s", event.Request.URL)
	}
}

func (p *tab) observeResponse(event *network.EventResponseReceived) {
	p.mu.Lock()
	for _, request := range p.requests {
		if request.id == event.RequestID {
			request.protocol, request.status = event.Response.Protocol, event.Response.Status
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if event.Response.Status >= 400 {
		p.problemf("response: %s: status %d", event.Response.URL, event.Response.Status)
	}
}

func (p *tab) requestURL(id network.RequestID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, request := range p.requests {
		if request.id == id {
			return request.url.String()
		}
	}
	return string(id)
}

func (p *tab) problemf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
	close(p.changed)
	p.changed = make(chan struct{})
}

// allow says that a test expects problems which match pattern.
func (p *tab) allow(pattern string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allowed = append(p.allowed, regexp.MustCompile(pattern))
}

// unexpected returns the problems that were not allowed.
func (p *tab) unexpected() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.problems), func(problem string) bool {
		return slices.ContainsFunc(p.allowed, func(pattern *regexp.Regexp) bool { return pattern.MatchString(problem) })
	})
}

// check fails the test if there were problems.
func (p *tab) check() {
	p.t.Helper()
	for _, problem := range p.unexpected() {
		p.t.Error(problem)
	}
}

// requested returns the requests for a path, in their order.
func (p *tab) requested(path string) []*request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*request
	for _, request := range p.requests {
		if request.url.Path == path {
			found = append(found, request)
		}
	}
	return found
}

// message decodes the message of an RPC's request.
func (r *request) message(t *testing.T, streaming bool, message proto.Message) {
	t.Helper()
	body := r.body
	if streaming {
		// A message of a stream begins with a byte of flags and its length.
		if len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
			t.Fatalf("%s has the body %q", r.url, body)
		}
		body = body[5:]
	}
	unmarshal := proto.Unmarshal
	if r.json {
		unmarshal = protojson.Unmarshal
	}
	if err := unmarshal(body, message); err != nil {
		t.Fatal(err)
	}
}

// followed returns the requests of FollowNotes that the page has made for rectangles.
func (p *tab) followed() []*routeguidev1.FollowNotesRequest {
	p.t.Helper()
	var requests []*routeguidev1.FollowNotesRequest
	for _, made := range p.requested(followNotes) {
		var request routeguidev1.FollowNotesRequest
		made.message(p.t, true, &request)
		if request.GetRectangle() != nil {
			requests = append(requests, &request)
		}
	}
	return requests
}

// picture takes a picture of the page.
func (p *tab) picture() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	image, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Errorf("take a picture: %v", err)
		return
	}
	name := strings.NewReplacer("/", "-", " ", "-").Replace(p.t.Name())
	for number := 1; ; number++ {
		path := filepath.Join(pictures, fmt.Sprintf("%s-%d.png", name, number))
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, os.ErrExist) {
			continue // Another picture of this test.
		}
		if err != nil {
			p.t.Error(err)
			return
		}
		_, err = file.Write(image)
		if err := errors.Join(err, file.Close()); err != nil {
			p.t.Error(err)
		}
		return
	}
}

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

// e7 returns degrees in the contract's unit.
func e7(degrees float64) int32 {
	return int32(math.Round(degrees * 1e7))
}

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

// awaitFocus waits until an element has the focus.
func (p *tab) awaitFocus(selector string) {
	p.t.Helper()
	p.await(`document.activeElement?.matches(args[0])`, selector)
}

// awaitObserved waits until seen returns true, which it finds out from the requests and problems of the tab.
func (p *tab) awaitObserved(seen func() bool, what string) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		if seen() {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			p.t.Fatalf("not within %v: %s; the problems are %q", patience, what, p.unexpected())
		}
	}
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
