package telemetry_test

import (
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"example.com/routeguide/server/internal/telemetry"
)

// With OpenTelemetry's variables, a call is exported as a span by OTLP, with a link to the caller's trace.
func TestInterceptorsExportSpans(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	spans := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var export collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &export)
		}
		if err != nil {
			t.Error(err)
		}
		for _, resource := range export.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					name := span.GetName()
					for _, link := range span.GetLinks() {
						name += " of " + hex.EncodeToString(link.GetTraceId())
					}
					spans <- name
				}
			}
		}
	}))
	defer receiver.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	exporter, err := telemetry.Start(t.Context(), false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(connect.NewUnaryHandler("/some.Service/Method",
		func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			return connect.NewResponse(&emptypb.Empty{}), nil
		}, connect.WithInterceptors(exporter.Interceptors()...)))
	defer server.Close()
	client := connect.NewClient[emptypb.Empty, emptypb.Empty](server.Client(), server.URL+"/some.Service/Method")
	request := connect.NewRequest(&emptypb.Empty{})
	request.Header().Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	if _, err := client.CallUnary(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if span := <-spans; span != "some.Service/Method of "+trace {
		t.Errorf("got the span %s", span)
	}
}

// Errors of the export are logged in the server's format.
func TestStartLogsExporterErrors(t *testing.T) {
	receiver := httptest.NewServer(http.NotFoundHandler())
	defer receiver.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	var log strings.Builder
	exporter, err := telemetry.Start(t.Context(), false, slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	interceptor := exporter.Interceptors()[0]
	_, _ = interceptor.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		return connect.NewResponse(&emptypb.Empty{}), nil
	})(t.Context(), connect.NewRequest(&emptypb.Empty{}))
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(log.String(), "{") || !strings.Contains(log.String(), "export of traces failed") || !strings.Contains(log.String(), "404") {
		t.Errorf("the log is %q", log.String())
	}
}

func TestStartExportsNothingByDefault(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	exporter, err := telemetry.Start(t.Context(), false, slog.New(slog.DiscardHandler))
	if err != nil || len(exporter.Interceptors()) > 0 {
		t.Errorf("got %v, %v", exporter.Interceptors(), err)
	}
	if err := exporter.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	if _, err := telemetry.Start(t.Context(), false, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "http/protobuf") {
		t.Errorf("got %v", err)
	}
}
