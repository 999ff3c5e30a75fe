package web

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"html"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
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

func TestHandlerServesEachFile(t *testing.T) {
	t.Parallel()
	page := newPage(t, Options{})
	types := map[string]string{
		".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
		".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png", ".txt": "text/plain; charset=utf-8",
	}
	for name, content := range distFiles(t) {
		target, cacheControl := "/"+name, "no-cache"
		switch {
		case name == "index.html":
			target = "/"
			content = regexp.MustCompile(`\{\{[^}]*\}\}`).ReplaceAll(content, nil)
		case strings.HasPrefix(name, "assets/"):
			cacheControl = "public, max-age=31536000, immutable"
		}
		plain := get(t, page, http.MethodGet, target)
		compressed := get(t, page, http.MethodGet, target, "Accept-Encoding", "gzip, deflate, br")
		if got := body(t, plain); plain.StatusCode != http.StatusOK || !bytes.Equal(got, content) || plain.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: got %s with %d bytes, want %d", target, plain.Status, len(got), len(content))
		}
		packed := body(t, compressed)
		if compressed.Header.Get("Content-Encoding") == "gzip" {
			reader, err := gzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			if unpacked, err := io.ReadAll(reader); err != nil || !bytes.Equal(unpacked, content) {
				t.Errorf("%s in gzip: got %d bytes, %v, want %d", target, len(unpacked), err, len(content))
			}
			if plain.Header.Get("ETag") == compressed.Header.Get("ETag") {
				t.Errorf("%s: both representations have the ETag %s", target, plain.Header.Get("ETag"))
			}
		} else if !bytes.Equal(packed, content) {
			t.Errorf("%s: got %d bytes without gzip, want %d", target, len(packed), len(content))
		}
		for _, response := range []*http.Response{plain, compressed} {
			header := response.Header
			if header.Get("Content-Type") != types[path.Ext(name)] || header.Get("Cache-Control") != cacheControl || header.Get("Vary") != "Accept-Encoding" ||
				response.ContentLength < 0 || !regexp.MustCompile(`^"[\w-]{43}"$`).MatchString(header.Get("ETag")) {
				t.Errorf("%s: the header is %v", target, header)
			}
			checkSecurity(t, response, "")
			// A revalidation, and a HEAD, get the same header without the body.
			encoding := header.Get("Content-Encoding")
			head := get(t, page, http.MethodHead, target, "Accept-Encoding", encoding)
			if got := body(t, head); head.StatusCode != http.StatusOK || len(got) > 0 || head.ContentLength != response.ContentLength || head.Header.Get("ETag") != header.Get("ETag") {
				t.Errorf("HEAD %s: got %s, %v", target, head.Status, head.Header)
			}
			cached := get(t, page, http.MethodGet, target, "Accept-Encoding", encoding, "If-None-Match", `"other", `+header.Get("ETag"))
			if got := body(t, cached); cached.StatusCode != http.StatusNotModified || len(got) > 0 || cached.Header.Get("ETag") != header.Get("ETag") ||
				cached.Header.Get("Cache-Control") != cacheControl || cached.Header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s with If-None-Match: got %s, %v", target, cached.Status, cached.Header)
			}
			if other := get(t, page, http.MethodGet, target, "Accept-Encoding", encoding, "If-None-Match", `"other"`); other.StatusCode != http.StatusOK {
				t.Errorf("%s with the ETag of another version: got %s", target, other.Status)
			}
		}
	}
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

func TestHandlerRanges(t *testing.T) {
	t.Parallel()
	page := newPage(t, Options{})
	whole := body(t, get(t, page, http.MethodGet, "/"))
	packed := get(t, page, http.MethodGet, "/", "Accept-Encoding", "gzip")
	content := body(t, packed)
	for _, test := range []struct {
		encoding, rangeField string
		want                 []byte
		status               int
	}{
		{"identity", "bytes=10-19", whole[10:20], http.StatusPartialContent},
		{"gzip", "bytes=10-19", content[10:20], http.StatusPartialContent},
		{"gzip", "bytes=999999999-", nil, http.StatusRequestedRangeNotSatisfiable},
	} {
		response := get(t, page, http.MethodGet, "/", "Accept-Encoding", test.encoding, "Range", test.rangeField)
		if got := body(t, response); response.StatusCode != test.status || test.want != nil && (!bytes.Equal(got, test.want) || response.ContentLength != int64(len(got))) {
			t.Errorf("%s in %s: got %s, %q", test.rangeField, test.encoding, response.Status, got)
		}
	}
	failed := get(t, page, http.MethodGet, "/", "Accept-Encoding", "gzip", "If-Match", `"other"`)
	if failed.StatusCode != http.StatusPreconditionFailed || failed.ContentLength > 0 {
		t.Errorf("If-Match: got %s, %v", failed.Status, failed.Header)
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

// BenchmarkCompress is what the first browser waits for.
func BenchmarkCompress(b *testing.B) {
	dist, err := fs.Sub(embedded, "dist")
	if err != nil {
		b.Fatal(err)
	}
	size := 0
	for b.Loop() {
		files, err := readFiles(dist, &Options{})
		if err != nil {
			b.Fatal(err)
		}
		size = 0
		for _, file := range files {
			if compressed := file.gzip(); compressed != nil {
				size += len(compressed.content)
			}
		}
	}
	b.ReportMetric(float64(size), "gzip-bytes")
}

func TestHandlerAcceptEncoding(t *testing.T) {
	t.Parallel()
	for fields, want := range map[string]bool{
		"":                         false,
		"gzip":                     true,
		"GZIP":                     true,
		"x-gzip":                   true,
		"br, gzip;q=0.5":           true,
		"deflate|gzip":             true,
		"*":                        true,
		"identity;q=0.5, *;q=0.6":  true,
		"gzip ; q=0.001":           true,
		"gzip;Q=1.000":             true,
		"identity, gzip":           true,
		"identity;q=0":             false,
		"gzip;q=0":                 false,
		"gzip;q=0.000":             false,
		"gzip; q = 0":              false,
		"*;q=0":                    false,
		"gzip;q=0, *":              false,
		"identity;q=1, gzip;q=0.5": false,
		"*;q=0.5, gzip;q=0.1":      false,
		"gzip;q=":                  false,
		"gzip;q=2":                 false,
		"gzip;q=-1":                false,
		"gzip;q=NaN":               false,
		"gzipped, notgzip, gzip2":  false,
		"br":                       false,
		"identity":                 false,
		",;,=;q,":                  false,
		"\"gzip\"":                 false,
	} {
		var header http.Header
		if fields != "" {
			header = http.Header{"Accept-Encoding": strings.Split(fields, "|")}
		}
		if got := prefersGzip(header["Accept-Encoding"]); got != want {
			t.Errorf("%q: got gzip %v, want %v", fields, got, want)
		}
	}
	page := newPage(t, Options{})
	if response := get(t, page, http.MethodGet, "/", "Accept-Encoding", "gzip;q=0"); response.Header.Get("Content-Encoding") != "" {
		t.Errorf("gzip;q=0: got %v", response.Header)
	}
}

func TestTilesRefusesInvalidTemplates(t *testing.T) {
	t.Parallel()
	for template, want := range map[string]string{
		"{z}/{x}/{y}":                                      "scheme",
		"tile.example.org/{z}/{x}/{y}":                     "scheme",
		"//tile.example.org/{z}/{x}/{y}":                   "scheme",
		"ftp://tile.example.org/{z}/{x}/{y}":               "scheme",
		"javascript://tile.example.org/{z}/{x}/{y}":        "scheme",
		"data:image/png,{z}{x}{y}":                         "scheme",
		"https://tile.example.org/{z}/{x}":                 "placeholders",
		"https://tile.example.org/{Z}/{X}/{Y}":             "{Z} is none",
		"https://{s}.tile.example.org/{z}/{x}/{y}":         "instead of {s}",
		"https://tile.example.org/{z}/{x}/{y}{r}.png":      "{r} is none",
		"https://tile.example.org/{z}/{x}/{y}/{":           "brace",
		"https://tile.example.org/}{z}/{x}/{y}":            "brace",
		"https:///{z}/{x}/{y}":                             "host",
		"https://:8080/{z}/{x}/{y}":                        "host",
		"https://*/{z}/{x}/{y}":                            "host",
		"https://*.example.org/{z}/{x}/{y}":                "host",
		"https://a;b/{z}/{x}/{y}":                          "host",
		"https://a,b/{z}/{x}/{y}":                          "host",
		"https://a'self'/{z}/{x}/{y}":                      "percent-encoded",
		"https://a.example;script-src/{z}/{x}/{y}":         "host",
		"https://a%3bscript-src/{z}/{x}/{y}":               "not a URL",
		"https://a.example script-src/{z}/{x}/{y}":         "percent-encoded",
		"https://a.example/\r\nX: y/{z}/{x}/{y}":           "percent-encoded",
		"https://b\u00fccher.example/{z}/{x}/{y}":          "percent-encoded",
		"https://{z}.example/{x}/{y}":                      "not a URL",
		"https://[::1]/{z}/{x}/{y}":                        "host",
		"https://[::1]:80/{z}/{x}/{y}":                     "host",
		"https://tile.example.org./{z}/{x}/{y}":            "host",
		"https://tile.example.org:/{z}/{x}/{y}":            "host",
		"https://tile.example.org:0/{z}/{x}/{y}":           "port",
		"https://tile.example.org:70000/{z}/{x}/{y}":       "port",
		"https://tile.example.org:*/{z}/{x}/{y}":           "not a URL",
		"https://user:secret@tile.example.org/{z}/{x}/{y}": "user",
		"https://tile.example.org/{z}/{x}#{y}":             "fragment",
	} {
		var tiles Tiles
		if err := tiles.UnmarshalText([]byte(template)); err == nil || !strings.Contains(err.Error(), want) || tiles != (Tiles{}) {
			t.Errorf("%q: got %v, want an error with %q", template, err, want)
		}
	}
}

func TestTilesOriginIsInPolicy(t *testing.T) {
	t.Parallel()
	for template, origin := range map[string]string{
		"": "",
		"https://tile.example.org/{z}/{x}/{y}.png":                         " https://tile.example.org",
		"HTTP://Tile.Example.org:8080/a;b=c,*?k=v&z={z}&x={x}&y={y}&t=%27": " http://tile.example.org:8080",
		"http://127.0.0.1:9/{z}{x}{y}":                                     " http://127.0.0.1:9",
		"https://xn--bcher-kva.example/{z}/{x}/{y}":                        " https://xn--bcher-kva.example",
	} {
		var tiles Tiles
		if err := tiles.UnmarshalText([]byte(template)); err != nil {
			t.Error(err)
			continue
		}
		response := get(t, newPage(t, Options{Tiles: tiles}), http.MethodGet, "/")
		checkSecurity(t, response, origin)
		if got := meta(t, body(t, response), "map-tiles"); got != template {
			t.Errorf("the page has the tiles %q, want %q", got, template)
		}
	}
}

func FuzzTilesKeepPolicy(f *testing.F) {
	f.Add("https://tile.example.org/{z}/{x}/{y}.png")
	f.Add("http://127.0.0.1:8080/{z}/{x}/{y};a?b='*'")
	source := regexp.MustCompile(`^https?://[a-z0-9.-]+(:[0-9]+)?$`)
	f.Fuzz(func(t *testing.T, template string) {
		var tiles Tiles
		if err := tiles.UnmarshalText([]byte(template)); err == nil && template != "" && !source.MatchString(tiles.origin) {
			t.Errorf("%q: the origin is %q", template, tiles.origin)
		}
	})
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

func TestDistKeepsPolicyAndBounds(t *testing.T) {
	t.Parallel()
	all, compressed := 0, 0
	for name, content := range distFiles(t) {
		all += len(content)
		compressed += len(compress(content))
		if strings.HasPrefix(name, "assets/") && !regexp.MustCompile(`^assets/[\w.-]*-[0-9A-Za-z]{8,}\.[a-z]+$`).MatchString(name) {
			t.Errorf("%s has no hash in its name, but is served as immutable", name)
		}
		if path.Ext(name) == ".html" {
			for _, forbidden := range []string{`<style`, `\sstyle\s*=`, `\son[a-z]+\s*=`, `<script>`, `<script(?: (?:type|async|defer)[^> ]*)*>`, `<base`, `(?:src|href)="(?:/|[a-z]+:)`} {
				if match := regexp.MustCompile("(?i)" + forbidden).Find(content); match != nil {
					t.Errorf("%s has %q, which its policy or its place below a prefix forbids", name, match)
				}
			}
		}
	}
	if all > maxDistBytes || compressed > maxDistGzipBytes {
		t.Errorf("dist has %d bytes, %d in gzip; want at most %d, and %d", all, compressed, maxDistBytes, maxDistGzipBytes)
	}
}

func TestNewHandlerRefusesFilesThatAreNotOfThePage(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"map.js":           "not of the page",
		"assets/map.woff9": "no media type",
	} {
		if _, err := newHandler(fstest.MapFS{name: {}}, Options{}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, want)
		}
	}
	if _, err := newHandler(fstest.MapFS{"index.html": {Data: []byte("{{.Missing}}")}}, Options{}, nil); err == nil {
		t.Error("a page with an unknown action was accepted")
	}
}

func TestAdmitBoundsResponses(t *testing.T) {
	t.Parallel()
	admitted, released := 0, 0
	page := newPage(t, Options{Admit: func(*http.Request) (func(), bool) {
		if admitted == 2 {
			return nil, false
		}
		admitted++
		return func() { released++ }, true
	}})
	for _, test := range []struct {
		target string
		status int
	}{{"/", http.StatusOK}, {"/assets/none", http.StatusNotFound}, {"/", http.StatusServiceUnavailable}} {
		response := get(t, page, http.MethodGet, test.target)
		if response.StatusCode != test.status {
			t.Errorf("%s: got %s, want %d", test.target, response.Status, test.status)
		}
		if content := body(t, response); test.status == http.StatusServiceUnavailable && (response.Header.Get("Retry-After") == "" || len(content) > 0) {
			t.Errorf("the refusal is %v, %q", response.Header, content)
		}
	}
	if admitted != 2 || released != 2 {
		t.Errorf("%d responses were admitted, and %d released, want 2", admitted, released)
	}
}

// pipes is a listener of connections in memory, whose deadlines follow the clock of a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once // closes closed
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// requestLarge sends a GET for a file of 1 MB to a server with a stall timeout of a minute, and returns the connection. ended is closed once the
// handler has returned.
func requestLarge(t *testing.T) (conn net.Conn, ended <-chan struct{}) {
	t.Helper()
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	page, err := newHandler(fstest.MapFS{"assets/large-00000000.png": {Data: content}}, Options{StallTimeout: time.Minute}, refuse(t))
	if err != nil {
		t.Fatal(err)
	}
	returned := make(chan struct{})
	listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		defer close(returned)
		page.ServeHTTP(response, request)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	client, accepted := net.Pipe()
	listener.conns <- accepted
	t.Cleanup(func() {
		if err := errors.Join(client.Close(), server.Shutdown(context.Background())); err != nil {
			t.Error(err)
		}
		<-served
	})
	if _, err := io.WriteString(client, "GET /assets/large-00000000.png HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return client, returned
}

func TestStallTimeoutCutsSlowConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, ended := requestLarge(t)
		start := time.Now()
		if _, err := io.CopyN(io.Discard, conn, 100<<10); err != nil {
			t.Fatal(err)
		}
		if <-ended; time.Since(start) != time.Minute {
			t.Errorf("the handler held the connection of a client that reads nothing for %v", time.Since(start))
		}
	})
}

func TestStallTimeoutSparesSteadyReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn, ended := requestLarge(t)
		start, read := time.Now(), int64(0)
		for read < 1<<20 {
			n, err := io.CopyN(io.Discard, conn, chunkBytes)
			if read += n; err != nil {
				t.Fatalf("cut after %d bytes and %v: %v", read, time.Since(start), err)
			}
			time.Sleep(40 * time.Second) // Of the bubble's clock.
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		if <-ended; time.Since(start) < 20*time.Minute {
			t.Errorf("the response took %v", time.Since(start))
		}
	})
}
