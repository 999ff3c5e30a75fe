package browser

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/inspector"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

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

// Each kind of problem that fails a test is seen: otherwise all tests would pass in vain.
func TestProblemsAreSeen(t *testing.T) {
	t.Parallel()
	script := `
		console.error("one", 2)
		console.warn("beware")
		setTimeout(() => { throw new Error("lost") })
		setTimeout(() => Promise.reject(new Error("broken")))
		setTimeout(() => alert("hello"))
		fetch("/missing")
		fetch("/broken").catch(() => {})
		fetch("http://127.0.0.2:1/").catch(() => {})
		document.body.insertAdjacentHTML("beforeend", "<p style='color: red'>red</p>")
		document.body.appendChild(document.createElement("script")).textContent = "1"
		document.body.insertAdjacentHTML("beforeend", "<img src='data:,' onerror='1'>")
		document.body.insertAdjacentHTML("beforeend", "<form><label for='nothing'>Text</label><input></form>")
	`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; connect-src *; img-src data:")
		switch r.URL.Path {
		case "/":
			fmt.Fprint(w, "<!doctype html><title>page</title><body><script src=script.js></script>")
		case "/script.js":
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, script)
		case "/broken":
			panic(http.ErrAbortHandler)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	p := openTab(t, server.URL)
	for _, want := range []string{
		`console.error: "one" 2`,
		`console.warning: "beware"`,
		`uncaught exception: Uncaught Error: lost`,
		`Error: broken`,
		`dialog: hello`,
		`/missing: status 404`,
		`request failed: ` + server.URL + `/broken`,
		`request to another server: http://127.0.0.2:1/`,
		`"violatedDirective":"style-src-attr"`,
		`"violatedDirective":"script-src-elem"`,
		`"violatedDirective":"script-src-attr"`,
		`issue: GenericIssue`,
	} {
		p.awaitObserved(func() bool {
			return slices.ContainsFunc(p.unexpected(), func(problem string) bool { return strings.Contains(problem, want) })
		}, want)
	}
	p.allow(`.`)
}
