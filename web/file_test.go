package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

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
