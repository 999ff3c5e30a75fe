package telemetry

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// callDuration is an interceptor that records the duration of calls as OpenTelemetry's metric rpc.server.call.duration
// (https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/). It does what otelconnect does, with a small frame on the stack of every
// stream that waits: otelconnect's has 856 bytes, and silent chats would need stacks of twice the size.
type callDuration struct{ metric.Float64Histogram }

func newCallDuration(meter metric.Meter) (callDuration, error) {
	histogram, err := meter.Float64Histogram("rpc.server.call.duration",
		metric.WithUnit("s"), metric.WithDescription("Measures the duration of an incoming Remote Procedure Call (RPC)."),
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
	return callDuration{histogram}, err
}

// WrapUnary implements [connect.Interceptor].
func (d callDuration) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		start := time.Now()
		response, err := next(ctx, request)
		d.record(ctx, start, request.Peer(), request.Spec(), err)
		return response, err
	}
}

// WrapStreamingHandler implements [connect.Interceptor].
func (d callDuration) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		start := time.Now()
		return d.recordStream(ctx, start, conn, next(ctx, conn))
	}
}

// WrapStreamingClient implements [connect.Interceptor].
func (d callDuration) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (d callDuration) recordStream(ctx context.Context, start time.Time, conn connect.StreamingHandlerConn, err error) error {
	d.record(ctx, start, conn.Peer(), conn.Spec(), err)
	return err
}

func (d callDuration) record(ctx context.Context, start time.Time, peer connect.Peer, spec connect.Spec, err error) {
	system := "grpc"
	if peer.Protocol == connect.ProtocolConnect {
		system = "connectrpc"
	}
	attributes := []attribute.KeyValue{
		attribute.String("rpc.system.name", system),
		attribute.String("rpc.method", strings.TrimPrefix(spec.Procedure, "/")),
	}
	if err == nil || connect.IsNotModifiedError(err) {
		attributes = append(attributes, attribute.String("rpc.response.status_code", "OK"))
	} else {
		code := strings.ToUpper(connect.CodeOf(err).String())
		attributes = append(attributes, attribute.String("rpc.response.status_code", code), attribute.String("error.type", code))
	}
	d.Record(ctx, time.Since(start).Seconds(), metric.WithAttributeSet(attribute.NewSet(attributes...)))
}
