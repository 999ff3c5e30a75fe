package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

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
