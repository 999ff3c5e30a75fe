package service

import (
	"fmt"
	"net/http"
	pathpkg "path"
	"strings"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
)

// explain gives a clear error, in the protocol that was spoken, to the requests that Connect and
// procedures turn away with a bare status.
func explain(procedures procedures, next http.Handler) http.Handler {
	errorWriter := connect.NewErrorWriter()
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		next.ServeHTTP(&explainer{ResponseWriter: response, request: request, procedures: procedures, errorWriter: errorWriter}, request)
	})
}

type explainer struct {
	http.ResponseWriter

	request     *http.Request
	procedures  procedures
	errorWriter *connect.ErrorWriter
	explained   bool
}

// Unwrap is for [http.ResponseController].
func (e *explainer) Unwrap() http.ResponseWriter {
	return e.ResponseWriter
}

// Flush is for Connect, which does not look for it through Unwrap.
func (e *explainer) Flush() {
	if flusher, ok := e.ResponseWriter.(http.Flusher); ok {
		flusher.Flush()
	}
}

func (e *explainer) Write(body []byte) (int, error) {
	if e.explained {
		return len(body), nil // It is the text that explanation has taken the place of.
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
	// An error of writing is one of the connection, and nobody is left to hear of it.
	_ = e.errorWriter.Write(&withStatus{ResponseWriter: e.ResponseWriter, status: status}, e.request, err)
}

// codeOfStatus returns the code that clients give to a response which has an HTTP status and nothing else: the same in
// gRPC, gRPC-Web and Connect (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md,
// https://connectrpc.com/docs/protocol#http-to-error-code). An explanation must not change it.
func codeOfStatus(status int) connect.Code {
	if status == http.StatusNotFound {
		return connect.CodeUnimplemented
	}
	return connect.CodeUnknown
}

// reason returns why a request was turned away with status, or nil if status is not about that, or
// comes with an explanation.
func (e *explainer) reason(status int) error {
	header := e.Header()
	if contentType := header.Get("Content-Type"); contentType != "" && !strings.HasPrefix(contentType, "text/plain") {
		return nil
	}
	path := e.request.URL.Path
	switch status {
	case http.StatusNotFound:
		example := "calls go to /<service>/<method>, such as " + routeguideconnect.RouteGuideGetFeatureProcedure
		if cleaned := pathpkg.Clean(path); cleaned != path && e.procedures[cleaned] != nil {
			example = "did you mean " + cleaned + "?"
		}
		return fmt.Errorf("there is nothing at %s: %s", path, example)
	case http.StatusMethodNotAllowed:
		return fmt.Errorf("%s does not take %s: it takes %s", path, e.request.Method, header.Get("Allow"))
	case http.StatusUnsupportedMediaType:
		if e.request.Method == http.MethodGet {
			return fmt.Errorf("%s by GET needs the query ?encoding=json&message=..., or encoding=proto, and no body", path)
		}
		return fmt.Errorf("%s does not take the content type %q: it takes %s",
			path, e.request.Header.Get("Content-Type"), header.Get("Accept-Post"))
	case http.StatusHTTPVersionNotSupported:
		return fmt.Errorf("%s is a bidirectional stream, which needs HTTP/2, and this is %s: "+
			"without TLS, use HTTP/2 with prior knowledge on this same port (curl --http2-prior-knowledge)",
			path, e.request.Proto)
	default:
		return nil
	}
}

// withStatus replaces the HTTP status of an error. The protocols that carry errors in a response that is OK for HTTP
// keep that: gRPC, gRPC-Web and Connect's streams.
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
