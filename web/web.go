// Package web is the map page: the files that are built into dist, and the HTTP handler that serves them from memory. It imports only the
// standard library, and knows no RPC.
package web

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"
	"time"
)

//go:embed dist
var embedded embed.FS

// assets is the path of the files whose names have a hash of their contents.
const assets = "/assets/"

// Options configure the page. The zero value is the page without a tile server.
type Options struct {
	// Tiles is the tile server of the base map.
	Tiles Tiles
	// Attribution is the text that the page shows for the tiles. It is plain text, not HTML.
	Attribution string
	// StallTimeout is the longest time a client may take to read 32 KiB of a response, or the rest of it. The responses of slower
	// clients are cut. 0 is no limit.
	StallTimeout time.Duration
	// Admit acquires what a response needs, and release gives it back once the connection has taken the response. If ok is false, the client gets
	// status 503. Nil admits every request. It may be called concurrently.
	Admit func(request *http.Request) (release func(), ok bool)
}

// NewHandler returns a handler that answers GET and HEAD of the page's own paths: /, /LICENSES.txt, and all below /assets/. It calls next
// with any other request, unchanged.
func NewHandler(options Options, next http.Handler) (http.Handler, error) {
	dist, err := fs.Sub(embedded, "dist")
	if err != nil {
		return nil, err
	}
	return newHandler(dist, options, next)
}

func newHandler(dist fs.FS, options Options, next http.Handler) (http.Handler, error) {
	files, err := readFiles(dist, &options)
	if err != nil {
		return nil, err
	}
	return &handler{files: files, header: header(options.Tiles), options: options, next: next}, nil
}

// handler routes by exact path. [http.ServeMux] would redirect other forms of a path, and RPC clients do not follow redirects.
type handler struct {
	files   map[string]*file // by path
	header  map[string]string
	options Options
	next    http.Handler
}

// ServeHTTP implements [http.Handler]. RPCs pass here, so what is not for the page costs no allocation.
func (h *handler) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		h.next.ServeHTTP(response, request)
		return
	}
	file := h.files[request.URL.Path]
	if file == nil && !strings.HasPrefix(request.URL.Path, assets) {
		h.next.ServeHTTP(response, request)
		return
	}
	h.respond(newResponseWriter(response, h.options.StallTimeout), request, file)
}

// respond answers a request for a file, or for an asset that does not exist if file is nil.
func (h *handler) respond(response *responseWriter, request *http.Request, file *file) {
	for name, value := range h.header {
		response.Header().Set(name, value)
	}
	if h.options.Admit != nil {
		release, ok := h.options.Admit(request)
		if !ok {
			// Without a body, it does not wait for the client's flow-control window.
			response.Header().Set("Retry-After", "1")
			response.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		defer release()
	}
	defer response.flush()
	if file == nil {
		response.Header().Set("Cache-Control", revalidated)
		http.Error(response, "No such file.", http.StatusNotFound)
		return
	}
	file.serve(response, request)
}

// header returns the fields that all responses have.
func header(tiles Tiles) map[string]string {
	images := "'self' data:"
	if tiles.origin != "" {
		images += " " + tiles.origin
	}
	return map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src " + images +
			"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Permissions-Policy":           "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
		"Referrer-Policy":              "no-referrer",
		"X-Content-Type-Options":       "nosniff",
	}
}
