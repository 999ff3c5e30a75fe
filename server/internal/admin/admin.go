// Package admin is the HTTP server for operators, on a port of its own: liveness, readiness, metrics and profiles. It
// does not know RouteGuide, nor how calls are served.
package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// NewHandler returns a handler that serves
//
//   - /healthz: liveness, always 200;
//   - /readyz: readiness, 200 while ready returns nil, and otherwise 503 with the error;
//   - /metrics: the handler metrics;
//   - /debug/pprof/: profiles for go tool pprof (https://pkg.go.dev/net/http/pprof).
//
// It has no authentication. Profiles contain file names and the command line.
func NewHandler(ready func() error, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(response http.ResponseWriter, _ *http.Request) {
		_, _ = response.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(response http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(response, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = response.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// readHeaderTimeout is the read deadline of a request's header.
const readHeaderTimeout = 10 * time.Second

// A Server is an HTTP server for operators.
type Server struct {
	listener net.Listener
	http     *http.Server
	served   chan error // receives the error of http.Serve
}

// Start listens on address and serves handler until Close.
func Start(ctx context.Context, address string, handler http.Handler, logger *slog.Logger) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	server := &Server{
		listener: listener,
		http: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: readHeaderTimeout,
			ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		},
		served: make(chan error, 1),
	}
	go func() { server.served <- server.http.Serve(listener) }()
	return server, nil
}

// Addr returns the listen address.
func (s *Server) Addr() net.Addr {
	return s.listener.Addr()
}

// Close closes the listener and all connections, and waits for the server's goroutine.
func (s *Server) Close() error {
	err := s.http.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
