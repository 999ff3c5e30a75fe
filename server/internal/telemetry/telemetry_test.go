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

// With the standard variables, a call becomes a span that is sent by OTLP, and links to the trace of the caller.
func TestCallsAreTraced(t *testing.T) {
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
	told, err := telemetry.Start(t.Context(), false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(connect.NewUnaryHandler("/some.Service/Method",
		func(context.Context, *connect.Request[emptypb.Empty]) (*connect.Response[emptypb.Empty], error) {
			return connect.NewResponse(&emptypb.Empty{}), nil
		}, connect.WithInterceptors(told.Interceptors()...)))
	defer server.Close()
	client := connect.NewClient[emptypb.Empty, emptypb.Empty](server.Client(), server.URL+"/some.Service/Method")
	request := connect.NewRequest(&emptypb.Empty{})
	request.Header().Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	if _, err := client.CallUnary(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if err := told.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if span := <-spans; span != "some.Service/Method of "+trace {
		t.Errorf("got the span %s", span)
	}
}

// What goes wrong with sending traces is in the log, as a line of its own form.
func TestStartLogsTheErrorsOfTheExporter(t *testing.T) {
	receiver := httptest.NewServer(http.NotFoundHandler())
	defer receiver.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	var log strings.Builder
	told, err := telemetry.Start(t.Context(), false, slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	interceptor := told.Interceptors()[0]
	_, _ = interceptor.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		return connect.NewResponse(&emptypb.Empty{}), nil
	})(t.Context(), connect.NewRequest(&emptypb.Empty{}))
	if err := told.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(log.String(), "{") || !strings.Contains(log.String(), "traces are lost") || !strings.Contains(log.String(), "404") {
		t.Errorf("the log is %q", log.String())
	}
}

func TestNothingIsToldUnlessItIsAskedFor(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	told, err := telemetry.Start(t.Context(), false, slog.New(slog.DiscardHandler))
	if err != nil || len(told.Interceptors()) > 0 {
		t.Errorf("got %v, %v", told.Interceptors(), err)
	}
	if err := told.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	if _, err := telemetry.Start(t.Context(), false, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "http/protobuf") {
		t.Errorf("got %v", err)
	}
}
