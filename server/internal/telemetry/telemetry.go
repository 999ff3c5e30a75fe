// Package telemetry exports metrics to Prometheus and traces by OTLP. It does not know how the values come about.
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

	"example.com/routeguide/internal/command"
)

// scope is the instrumentation scope, in OpenTelemetry's terms.
const scope = "example.com/routeguide/server"

// Telemetry exports metrics and traces. Its methods may be called concurrently.
type Telemetry struct {
	registry     *prometheus.Registry // nil if there are no metrics
	metrics      *sdkmetric.MeterProvider
	meter        metric.Meter
	traces       *sdktrace.TracerProvider // nil if there are no traces
	interceptors []connect.Interceptor
	commits      metric.Float64Histogram
}

// Start starts the metrics, if withMetrics is set, and the export of traces, if the environment configures it
// (https://opentelemetry.io/docs/specs/otel/protocol/exporter/), for example with OTEL_EXPORTER_OTLP_ENDPOINT. It sets
// the error handler of OpenTelemetry, which is global to the process, to the logger.
func Start(ctx context.Context, withMetrics bool, logger *slog.Logger) (*Telemetry, error) {
	telemetry := &Telemetry{meter: noop.NewMeterProvider().Meter(scope)}
	if withMetrics {
		telemetry.registry = prometheus.NewRegistry()
		telemetry.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
		exporter, err := promexporter.New(promexporter.WithRegisterer(telemetry.registry), promexporter.WithoutScopeInfo(), promexporter.WithoutTargetInfo())
		if err != nil {
			return nil, err
		}
		telemetry.metrics = sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))
		telemetry.meter = telemetry.metrics.Meter(scope)
		duration, err := newCallDuration(telemetry.meter)
		if err != nil {
			return nil, err
		}
		telemetry.interceptors = append(telemetry.interceptors, duration)
	}
	if tracesEnabled() {
		if protocol := tracesProtocol(); protocol != "" && protocol != "http/protobuf" {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %q: only http/protobuf is supported", protocol)
		}
		otel.SetLogger(logr.FromSlogHandler(logger.Handler()))
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
			logger.Warn("export of traces failed", "err", err)
		}))
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, err
		}
		telemetry.traces = sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
		// The span of a call links to the caller's trace, and does not join it: callers are not trusted.
		interceptor, err := otelconnect.NewInterceptor(otelconnect.WithoutMetrics(),
			otelconnect.WithTracerProvider(telemetry.traces), otelconnect.WithPropagator(propagation.TraceContext{}))
		if err != nil {
			return nil, err
		}
		telemetry.interceptors = append(telemetry.interceptors, interceptor)
	}
	var err error
	telemetry.commits, err = telemetry.meter.Float64Histogram("routeguide.store.commit.duration",
		metric.WithUnit("s"), metric.WithDescription("Duration of a group commit: the time to make a batch of notes durable."),
		metric.WithExplicitBucketBoundaries(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5))
	return telemetry, err
}

// buildInfo returns a gauge that is always 1, with the version of the server in its labels.
func buildInfo() prometheus.Collector {
	build := command.ThisBuild()
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "routeguide_build_info",
		Help:        "Always 1, labelled with the version, the revision and the Go version of this build.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "goversion": build.Go},
	}, func() float64 { return 1 })
}

func tracesEnabled() bool {
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

// Interceptors returns the interceptor for RPCs, or none without metrics and traces.
func (t *Telemetry) Interceptors() []connect.Interceptor {
	return t.interceptors
}

// Handler serves the metrics to Prometheus. It needs metrics.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{})
}

// RecordCommit records the duration of a group commit.
func (t *Telemetry) RecordCommit(took time.Duration) {
	t.commits.Record(context.Background(), took.Seconds())
}

// A Metric is an observable instrument: it is read when the metrics are scraped.
type Metric struct {
	// Name is dotted, as in OpenTelemetry. Prometheus sees underscores.
	Name, Unit, Description string
	// Monotonic means a counter. Otherwise it is a gauge.
	Monotonic bool
	// Read returns the current value.
	Read func() int64
}

// Register registers metrics.
func (t *Telemetry) Register(metrics ...Metric) error {
	for _, m := range metrics {
		observe := func(_ context.Context, observer metric.Int64Observer) error {
			observer.Observe(m.Read())
			return nil
		}
		var err error
		if m.Monotonic {
			_, err = t.meter.Int64ObservableCounter(m.Name, metric.WithUnit(m.Unit),
				metric.WithDescription(m.Description), metric.WithInt64Callback(observe))
		} else {
			_, err = t.meter.Int64ObservableGauge(m.Name, metric.WithUnit(m.Unit),
				metric.WithDescription(m.Description), metric.WithInt64Callback(observe))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Shutdown flushes traces and stops the metrics.
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
