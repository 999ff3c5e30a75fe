package service_test

import (
	"net/http"
	"strings"
	"testing"

	"example.com/routeguide/gen/routeguide/routeguideconnect"
)

// OpenTelemetry's browser SDK adds trace context headers to every call. Browsers send such a call only if a
// preflight response allows all of its headers.
func TestCORSAllowsTraceContextHeaders(t *testing.T) {
	t.Parallel()
	options := bounded()
	options.Origins = []string{"https://example.com"}
	url, _ := startWith(t, options)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, url+routeguideconnect.RouteGuideGetFeatureProcedure, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	const headers = "authorization,baggage,connect-protocol-version,content-type,traceparent,tracestate"
	request.Header.Set("Origin", "https://example.com")
	request.Header.Set("Access-Control-Request-Method", http.MethodPost)
	request.Header.Set("Access-Control-Request-Headers", headers)
	response, err := newHTTP2(t).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if got := response.Header.Get("Access-Control-Allow-Headers"); !strings.EqualFold(got, headers) {
		t.Errorf("the preflight response allows the headers %q, want %q: %v", got, headers, response.Header)
	}
}
