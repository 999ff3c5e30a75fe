package web

import (
	"html"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The bounds of dist, in bytes: a page that takes longer to load is not what a newcomer waits for.
const (
	maxDistBytes     = 1_500_000
	maxDistGzipBytes = 450_000
)

// refuse fails the test when a request of the page is passed on.
func refuse(t *testing.T) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		t.Errorf("%s %s was passed on", request.Method, request.URL)
	})
}

func newPage(t *testing.T, options Options) http.Handler {
	t.Helper()
	page, err := NewHandler(options, refuse(t))
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// get returns the response to a request with header fields, given as pairs.
func get(t *testing.T, handler http.Handler, method, target string, fields ...string) *http.Response {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, target, http.NoBody)
	for pair := range slices.Chunk(fields, 2) {
		request.Header.Add(pair[0], pair[1])
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder.Result()
}

func body(t *testing.T, response *http.Response) []byte {
	t.Helper()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// distFiles returns the contents of dist by name.
func distFiles(t *testing.T) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	if err := fs.WalkDir(embedded, "dist", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[strings.TrimPrefix(name, "dist/")], err = embedded.ReadFile(name)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// checkSecurity checks the fields that protect the page.
func checkSecurity(t *testing.T, response *http.Response, tileOrigin string) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:" + tileOrigin +
			"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Referrer-Policy":              "no-referrer",
		"X-Content-Type-Options":       "nosniff",
	} {
		if got := response.Header.Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := response.Header.Get("Permissions-Policy"); !strings.Contains(got, "geolocation=()") {
		t.Errorf("Permissions-Policy is %q", got)
	}
}

func TestHandlerUnknownAssetIsNotFound(t *testing.T) {
	t.Parallel()
	page := newPage(t, Options{})
	for _, target := range []string{"/assets/", "/assets/map-00000000.js", "/assets/../index.html", "/assets//", "/assets/%2e%2e/index.html"} {
		response := get(t, page, http.MethodGet, target)
		if response.StatusCode != http.StatusNotFound || response.Header.Get("Cache-Control") != "no-cache" || response.Header.Get("ETag") != "" {
			t.Errorf("%s: got %s, %v", target, response.Status, response.Header)
		}
		checkSecurity(t, response, "")
	}
}

// others are requests that are not for the page.
func others(t *testing.T) []*http.Request {
	t.Helper()
	var requests []*http.Request
	for _, line := range []string{
		"POST /", "PUT /", "OPTIONS /", "DELETE /assets/", "POST /assets/x", "POST /LICENSES.txt",
		"POST /routeguide.RouteGuide/GetFeature", "GET /routeguide.RouteGuide/GetFeature?encoding=json&message={}",
		"GET //", "GET /.", "GET //assets/x", "GET /./assets/x", "GET /index.html", "GET /assets", "GET /Assets/x", "GET /licenses.txt", "HEAD /favicon.ico",
	} {
		method, target, _ := strings.Cut(line, " ")
		requests = append(requests, httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader("body")))
	}
	return requests
}

func TestHandlerPassesOtherRequestsUnchanged(t *testing.T) {
	t.Parallel()
	for _, request := range others(t) {
		recorder := httptest.NewRecorder()
		header, address := request.Header.Clone(), *request.URL
		passed := false
		handler, err := NewHandler(Options{StallTimeout: time.Minute}, http.HandlerFunc(func(response http.ResponseWriter, got *http.Request) {
			passed = true
			if response != http.ResponseWriter(recorder) || got != request || *got.URL != address || len(got.Header) != len(header) || len(response.Header()) > 0 {
				t.Errorf("%s %s was changed", request.Method, request.URL)
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		if handler.ServeHTTP(recorder, request); !passed {
			t.Errorf("%s %s was not passed on", request.Method, request.URL)
		}
	}
}

func TestHandlerCostsOtherRequestsNoAllocation(t *testing.T) {
	handler, err := NewHandler(Options{StallTimeout: time.Minute}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	for _, request := range others(t) {
		if allocations := testing.AllocsPerRun(100, func() { handler.ServeHTTP(recorder, request) }); allocations > 0 {
			t.Errorf("%s %s: %v allocations", request.Method, request.URL, allocations)
		}
	}
}

func BenchmarkHandlerOtherRequest(b *testing.B) {
	handler, err := NewHandler(Options{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if err != nil {
		b.Fatal(err)
	}
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		request, recorder := httptest.NewRequest(method, "/routeguide.RouteGuide/GetFeature", http.NoBody), httptest.NewRecorder()
		b.Run(method, func(b *testing.B) {
			for b.Loop() {
				handler.ServeHTTP(recorder, request)
			}
		})
	}
}

// BenchmarkNewHandler is what the page adds to a start.
func BenchmarkNewHandler(b *testing.B) {
	for b.Loop() {
		if _, err := NewHandler(Options{}, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// meta returns the content of an element of the page's head, as a browser reads it.
func meta(t *testing.T, page []byte, name string) string {
	t.Helper()
	match := regexp.MustCompile(`<meta name="` + name + `" content="([^"<>]*)">`).FindSubmatch(page)
	if match == nil {
		t.Fatalf("no meta element %s in %s", name, page)
	}
	return html.UnescapeString(string(match[1]))
}

func TestAttributionIsText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "© Example & others", `"><script>alert(1)</script>`, "{{.Tiles}}", "'`\u202e</head>"} {
		page := body(t, get(t, newPage(t, Options{Attribution: text}), http.MethodGet, "/"))
		if got := meta(t, page, "map-attribution"); got != text {
			t.Errorf("the page has the attribution %q, want %q", got, text)
		}
	}
}
