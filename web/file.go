package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Values of Cache-Control: of files whose names change with their contents, and of all others, which have an ETag for that.
const (
	immutable   = "public, max-age=31536000, immutable"
	revalidated = "no-cache"
)

// contentTypes are the media types by extension. Package mime would ask the files of the system, which differ.
var contentTypes = map[string]string{
	".css":  "text/css; charset=utf-8",
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".json": "application/json",
	".png":  "image/png",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// file is a file of the page. Its methods may be called concurrently.
type file struct {
	contentType  string
	cacheControl string
	plain        *representation
	// gzip returns the compressed representation, or nil if that is not smaller. It is made at the first request for it, so that it
	// delays no start, and takes no memory on a server whose page nobody opens.
	gzip func() *representation
}

// representation is the content of a file in one content coding (https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.3).
type representation struct {
	content []byte
	etag    string // strong
}

func newRepresentation(content []byte) *representation {
	hash := sha256.Sum256(content)
	return &representation{content, `"` + base64.RawURLEncoding.EncodeToString(hash[:]) + `"`}
}

// readFiles returns the files of the page by path.
func readFiles(dist fs.FS, options *Options) (map[string]*file, error) {
	files := make(map[string]*file)
	err := fs.WalkDir(dist, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(dist, name)
		if err != nil {
			return err
		}
		location, cacheControl := "/"+name, revalidated
		switch {
		case name == "index.html":
			location = "/"
			if content, err = execute(content, options); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		case strings.HasPrefix(location, assets):
			cacheControl = immutable
		case name != "LICENSES.txt":
			return fmt.Errorf("%s: a file that is not of the page", name)
		}
		contentType := contentTypes[path.Ext(name)]
		if contentType == "" {
			return fmt.Errorf("%s: its extension has no media type", name)
		}
		files[location] = newFile(content, contentType, cacheControl)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("the map page: %w", err)
	}
	return files, nil
}

// execute fills in index.html, which is a template.
func execute(index []byte, options *Options) ([]byte, error) {
	page, err := template.New("").Parse(string(index))
	if err != nil {
		return nil, err
	}
	var filled bytes.Buffer
	err = page.Execute(&filled, struct{ Tiles, Attribution string }{options.Tiles.String(), options.Attribution})
	return filled.Bytes(), err
}

func newFile(content []byte, contentType, cacheControl string) *file {
	return &file{
		contentType:  contentType,
		cacheControl: cacheControl,
		plain:        newRepresentation(content),
		gzip: sync.OnceValue(func() *representation {
			compressed := compress(content)
			if len(compressed) >= len(content) {
				return nil
			}
			return newRepresentation(compressed)
		}),
	}
}

func compress(content []byte) []byte {
	var compressed bytes.Buffer
	writer := gzip.NewWriter(&compressed) // The best level takes twice as long for 1 % less.
	_, _ = writer.Write(content)          // A buffer takes everything.
	_ = writer.Close()
	return compressed.Bytes()
}

// serve writes the response to a GET or HEAD.
func (f *file) serve(response *responseWriter, request *http.Request) {
	header := response.Header()
	header.Set("Content-Type", f.contentType)
	header.Set("Cache-Control", f.cacheControl)
	header.Set("Vary", "Accept-Encoding")
	chosen := f.plain
	if prefersGzip(request.Header["Accept-Encoding"]) {
		if compressed := f.gzip(); compressed != nil {
			chosen = compressed
			header.Set("Content-Encoding", "gzip")
			response.length = len(compressed.content)
		}
	}
	header.Set("ETag", chosen.etag)
	http.ServeContent(response, request, "", time.Time{}, bytes.NewReader(chosen.content))
}

// prefersGzip reports whether the fields Accept-Encoding of a request accept gzip, and prefer nothing else to it
// (https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3).
func prefersGzip(fields []string) bool {
	const unnamed = -1
	compressed, identity, others := float64(unnamed), float64(unnamed), float64(unnamed)
	for _, field := range fields {
		for element := range strings.SplitSeq(field, ",") {
			coding, parameters, _ := strings.Cut(element, ";")
			switch strings.ToLower(strings.TrimSpace(coding)) {
			case "gzip", "x-gzip":
				compressed = weight(parameters)
			case "identity":
				identity = weight(parameters)
			case "*":
				others = weight(parameters)
			}
		}
	}
	if compressed == unnamed {
		compressed = others
	}
	if identity == unnamed {
		identity = others
	}
	return compressed > 0 && compressed >= identity
}

// weight returns the weight in the parameters of a content coding: 1 if there is none, and 0, not acceptable, if it is malformed
// (https://www.rfc-editor.org/rfc/rfc9110#section-12.4.2).
func weight(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, text, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !(value >= 0 && value <= 1) { // Not a number is neither.
			return 0
		}
		return value
	}
	return 1
}
