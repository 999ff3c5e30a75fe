package service

import (
	"fmt"
	"net/http"
	pathpkg "path"
	"strings"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
)

// explain is a middleware that adds an error, in the protocol of the request, to responses of Connect and
// procedures that have an HTTP error status only.
func explain(procedures procedures, next http.Handler) http.Handler {
	return &explanations{procedures, next, connect.NewErrorWriter()}
}

type explanations struct {
	procedures  procedures
	next        http.Handler
	errorWriter *connect.ErrorWriter
}

// ServeHTTP implements [http.Handler].
func (e *explanations) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	e.next.ServeHTTP(&explainer{ResponseWriter: response, request: request, explanations: e}, request)
}

// explainer is a response writer that replaces bare error statuses.
type explainer struct {
	http.ResponseWriter

	*explanations

	request   *http.Request
	explained bool // an explanation was written; drop the original body
}

// Unwrap implements the interface of [http.ResponseController].
func (e *explainer) Unwrap() http.ResponseWriter {
	return e.ResponseWriter
}

// Flush implements [http.Flusher] for Connect, which does not call Unwrap.
func (e *explainer) Flush() {
	if flusher, ok := e.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
}

func (e *explainer) Write(body []byte) (int, error) {
	if e.explained {
		return len(body), nil // The explanation replaces this body.
	}
	return e.ResponseWriter.Write(body)
}

func (e *explainer) WriteHeader(status int) {
	reason := e.reason(status)
	if reason == nil {
		e.ResponseWriter.WriteHeader(status)
		return
	}
	e.explained = true
	err := connect.NewError(codeOfStatus(status), reason)
	// It fails only if the connection does, and then the client is gone.
	_ = e.errorWriter.Write(&withStatus{ResponseWriter: e.ResponseWriter, status: status}, e.request, err)
}

// codeOfStatus returns the code that clients derive from a bare HTTP status. It is the same in gRPC, gRPC-Web and
// Connect (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md,
// https://connectrpc.com/docs/protocol#http-to-error-code). An explanation must not change the code.
func codeOfStatus(status int) connect.Code {
	if status == http.StatusNotFound {
		return connect.CodeUnimplemented
	}
	return connect.CodeUnknown
}

// reason returns the error that explains status, or nil if status is not a rejection of the request, or if the
// response already carries an explanation.
func (e *explainer) reason(status int) error {
	header := e.Header()
	if contentType := header.Get("Content-Type"); contentType != "" && !strings.HasPrefix(contentType, "text/plain") {
		return nil
	}
	path := e.request.URL.Path
	switch status {
	case http.StatusNotFound:
		hint := "paths are /<service>/<method>, such as " + routeguideconnect.RouteGuideGetFeatureProcedure
		if cleaned := pathpkg.Clean(path); cleaned != path && e.procedures[cleaned] != nil {
			hint = "did you mean " + cleaned + "?"
		}
		return fmt.Errorf("no method at %s: %s", path, hint)
	case http.StatusMethodNotAllowed:
		return fmt.Errorf("%s does not allow %s (allowed: %s)", path, e.request.Method, header.Get("Allow"))
	case http.StatusUnsupportedMediaType:
		if e.request.Method == http.MethodGet {
			return fmt.Errorf("GET %s needs a query ?encoding=json&message=... (or encoding=proto) and no body", path)
		}
		return fmt.Errorf("%s does not accept content type %q (accepted: %s)",
			path, e.request.Header.Get("Content-Type"), header.Get("Accept-Post"))
	case http.StatusHTTPVersionNotSupported:
		return fmt.Errorf("%s is a bidirectional stream and needs HTTP/2, but the request is %s "+
			"(without TLS, use HTTP/2 with prior knowledge on the same port: curl --http2-prior-knowledge)",
			path, e.request.Proto)
	default:
		return nil
	}
}

// withStatus replaces the HTTP status of an error response. It keeps 200 OK, with which gRPC, gRPC-Web and
// Connect's streams carry errors.
type withStatus struct {
	http.ResponseWriter

	status int
}

func (w *withStatus) WriteHeader(status int) {
	if status != http.StatusOK {
		status = w.status
	}
	w.ResponseWriter.WriteHeader(status)
}
