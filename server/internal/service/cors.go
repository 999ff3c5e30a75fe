package service

import (
	"net/http"
	"time"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"
)

// preflightMaxAge is the time for which a browser may cache the response to a preflight request.
const preflightMaxAge = 2 * time.Hour

// allowedHeaders returns the request headers that pages may send: those of the protocols, the token, and the
// trace context that OpenTelemetry's browser SDK adds to each call (https://www.w3.org/TR/trace-context/,
// https://www.w3.org/TR/baggage/).
func allowedHeaders() []string {
	return append(connectcors.AllowedHeaders(), "Authorization", "Traceparent", "Tracestate", "Baggage")
}

// withCORS returns a middleware that lets pages of the origins call a handler from a browser.
func withCORS(origins []string) func(http.Handler) http.Handler {
	if len(origins) == 0 {
		return func(next http.Handler) http.Handler { return next }
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: allowedHeaders(),
		ExposedHeaders: connectcors.ExposedHeaders(),
		MaxAge:         int(preflightMaxAge.Seconds()),
	}).Handler
}
