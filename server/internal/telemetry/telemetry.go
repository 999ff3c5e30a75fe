// Package telemetry is what a server tells of itself to those who watch it: metrics for Prometheus, and traces by
// OTLP. It knows which numbers there are, and not how they come about.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"example.com/routeguide/internal/command"
)

// The scope of the numbers, in OpenTelemetry's words.
const scope = "example.com/routeguide/server"

// Telemetry is what is told. Its methods may be called concurrently.
type Telemetry struct {
	registry    *prometheus.Registry // nil if there are no metrics
	metrics     *sdkmetric.MeterProvider
	meter       metric.Meter
	traces      *sdktrace.TracerProvider // nil if there are none
	interceptor connect.Interceptor
	commits     metric.Float64Histogram
}

// Start begins to collect metrics, if there shall be any, and to send traces, if the environment has the variables
// of OpenTelemetry for that (https://opentelemetry.io/docs/specs/otel/protocol/exporter/), such as
// OTEL_EXPORTER_OTLP_ENDPOINT. The logger gets what goes wrong with sending them: OpenTelemetry has one place for that in a
// process, and by default it is stderr.
func Start(ctx context.Context, withMetrics bool, logger *slog.Logger) (*Telemetry, error) {
	telemetry := &Telemetry{meter: noop.NewMeterProvider().Meter(scope)}
	options := []otelconnect.Option{otelconnect.WithMeterProvider(noop.NewMeterProvider()), otelconnect.WithTracerProvider(tracenoop.NewTracerProvider())}
	if withMetrics {
		telemetry.registry = prometheus.NewRegistry()
		telemetry.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
		exporter, err := promexporter.New(promexporter.WithRegisterer(telemetry.registry), promexporter.WithoutScopeInfo(), promexporter.WithoutTargetInfo())
		if err != nil {
			return nil, err
		}
		telemetry.metrics = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
		telemetry.meter = telemetry.metrics.Meter(scope)
		options = append(options, otelconnect.WithMeterProvider(telemetry.metrics))
	}
	if tracesAreWanted() {
		if protocol := tracesProtocol(); protocol != "" && protocol != "http/protobuf" {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q: traces go by http/protobuf only", protocol)
		}
		otel.SetLogger(logr.FromSlogHandler(logger.Handler()))
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
			logger.Warn("traces are lost", "err", err)
		}))
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, err
		}
		telemetry.traces = sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
		// The span of a call links to the trace that its caller names: anyone may call, so it is no part of that trace.
		options = append(options, otelconnect.WithTracerProvider(telemetry.traces), otelconnect.WithPropagator(propagation.TraceContext{}))
	}
	if withMetrics || telemetry.traces != nil {
		interceptor, err := otelconnect.NewInterceptor(options...)
		if err != nil {
			return nil, err
		}
		telemetry.interceptor = interceptor
	}
	var err error
	telemetry.commits, err = telemetry.meter.Float64Histogram("routeguide.store.commit.duration",
		metric.WithUnit("s"), metric.WithDescription("How long it took to make a batch of notes durable."),
		metric.WithExplicitBucketBoundaries(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5))
	return telemetry, err
}

// buildInfo is always 1. Its labels say what the server was built from.
func buildInfo() prometheus.Collector {
	build := command.ThisBuild()
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "routeguide_build_info",
		Help:        "Always 1, labelled with the version, the revision and the version of Go of this build.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "goversion": build.Go},
	}, func() float64 { return 1 })
}

func tracesAreWanted() bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" ||
		os.Getenv("OTEL_TRACES_EXPORTER") == "otlp"
}

func tracesProtocol() string {
	if protocol := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"); protocol != "" {
		return protocol
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
}

// Interceptors returns what tells of RPCs, or nothing if nothing is told.
func (t *Telemetry) Interceptors() []connect.Interceptor {
	if t.interceptor == nil {
		return nil
	}
	return []connect.Interceptor{t.interceptor}
}

// Handler serves the metrics to Prometheus.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{})
}

// RecordCommit notes how long it took to make a batch of notes durable.
func (t *Telemetry) RecordCommit(took time.Duration) {
	t.commits.Record(context.Background(), took.Seconds())
}

// A Metric is one that is looked at whenever the metrics are asked for.
type Metric struct {
	// Name is in OpenTelemetry's form; Prometheus gets underscores for its dots.
	Name, Unit, Description string
	// Monotonic says that it counts, and does not also fall.
	Monotonic bool
	// Read returns what it is now.
	Read func() int64
}

// Register adds numbers.
func (t *Telemetry) Register(numbers ...Metric) error {
	for _, number := range numbers {
		observe := func(_ context.Context, observer metric.Int64Observer) error {
			observer.Observe(number.Read())
			return nil
		}
		var err error
		if number.Monotonic {
			_, err = t.meter.Int64ObservableCounter(number.Name, metric.WithUnit(number.Unit),
				metric.WithDescription(number.Description), metric.WithInt64Callback(observe))
		} else {
			_, err = t.meter.Int64ObservableGauge(number.Name, metric.WithUnit(number.Unit),
				metric.WithDescription(number.Description), metric.WithInt64Callback(observe))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Shutdown sends what is still to be sent.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var err error
	if t.traces != nil {
		err = t.traces.Shutdown(ctx)
	}
	if t.metrics != nil {
		err = errors.Join(err, t.metrics.Shutdown(ctx))
	}
	return err
}
