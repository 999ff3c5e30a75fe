package service

import (
	"net/http"
	"time"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"
)

// preflightFor is how long a browser may keep what it was told of an origin.
const preflightFor = 2 * time.Hour

// allowedHeaders are the request headers that pages may send: those of the protocols, a token, and what OpenTelemetry's
// SDK for browsers adds to each call (https://www.w3.org/TR/trace-context/, https://www.w3.org/TR/baggage/).
func allowedHeaders() []string {
	return append(connectcors.AllowedHeaders(), "Authorization", "Traceparent", "Tracestate", "Baggage")
}

// withCORS returns what lets pages of some origins call a handler from a browser.
func withCORS(origins []string) func(http.Handler) http.Handler {
	if len(origins) == 0 {
		return func(next http.Handler) http.Handler { return next }
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: allowedHeaders(),
		ExposedHeaders: connectcors.ExposedHeaders(),
		MaxAge:         int(preflightFor.Seconds()),
	}).Handler
}
