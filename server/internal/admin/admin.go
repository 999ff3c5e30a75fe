// Package admin is what whoever runs a server looks at it with, over HTTP on a port of its own: whether it
// lives and is ready, metrics, and profiles of what it does. It knows nothing of RouteGuide, nor of how calls are
// served.
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
//   - /healthz: 200 as long as the process lives;
//   - /readyz: 200 while ready returns nil, and 503 with the reason otherwise;
//   - /metrics: what metrics serves;
//   - /debug/pprof/: profiles, for go tool pprof (https://pkg.go.dev/net/http/pprof).
//
// It asks nobody who they are. Profiles hold the names of files, and what was on the command line.
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

// readHeaderTimeout is how long a request's header may take to arrive.
const readHeaderTimeout = 10 * time.Second

// A Server serves a handler to whoever runs the process.
type Server struct {
	listener net.Listener
	http     *http.Server
	served   chan error
}

// Start serves handler on address, until Close.
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

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr {
	return s.listener.Addr()
}

// Close ends all requests, and then the server.
func (s *Server) Close() error {
	err := s.http.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
