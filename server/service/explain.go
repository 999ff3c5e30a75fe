package service

import (
	"fmt"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
)

// explain gives a clear error, in the protocol that was spoken, to the requests that Connect and
// the mux turn away with a bare status.
func explain(next http.Handler) http.Handler {
	errorWriter := connect.NewErrorWriter()
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		next.ServeHTTP(&explainer{ResponseWriter: response, request: request, errorWriter: errorWriter}, request)
	})
}

type explainer struct {
	http.ResponseWriter

	request     *http.Request
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
	err := connect.NewError(connect.CodeUnimplemented, reason)
	response := e.ResponseWriter
	if !errorInOK(e.request) {
		response = &withStatus{ResponseWriter: response, status: status}
	}
	// An error of writing is one of the connection, and nobody is left to hear of it.
	_ = e.errorWriter.Write(response, e.request, err)
}

// errorInOK returns whether the protocol of a request carries errors in a response that is OK for HTTP:
// gRPC, gRPC-Web and Connect's streams do. Everyone else gets the error as Connect's JSON, under the
// status that was meant.
func errorInOK(request *http.Request) bool {
	contentType, _, _ := strings.Cut(request.Header.Get("Content-Type"), "+")
	switch contentType {
	case "application/grpc", "application/grpc-web", "application/connect":
		return request.Method == http.MethodPost
	default:
		return false
	}
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
		return fmt.Errorf("there is nothing at %s: calls go to /<service>/<method>, such as %s",
			path, routeguideconnect.RouteGuideGetFeatureProcedure)
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

// withStatus sends a status of its own choice.
type withStatus struct {
	http.ResponseWriter

	status int
}

func (w *withStatus) WriteHeader(int) {
	w.ResponseWriter.WriteHeader(w.status)
}
