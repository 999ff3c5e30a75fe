package admin_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"example.com/routeguide/server/internal/admin"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestHandlerLivenessReadinessAndProfiles(t *testing.T) {
	t.Parallel()
	var draining atomic.Bool
	handler := admin.NewHandler(func() error {
		if draining.Load() {
			return errors.New("draining")
		}
		return nil
	}, http.NotFoundHandler())
	server, err := admin.Start(t.Context(), "127.0.0.1:0", handler, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	get := func(path string, status int, text string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.Addr().String()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != status || !strings.Contains(string(body), text) {
			t.Errorf("GET %s: %d %q, want %d and %q in it", path, response.StatusCode, body, status, text)
		}
	}
	get("/healthz", http.StatusOK, "ok")
	get("/readyz", http.StatusOK, "ok")
	get("/debug/pprof/", http.StatusOK, "goroutine")
	get("/debug/pprof/goroutine?debug=1", http.StatusOK, "goroutine profile")
	draining.Store(true)
	get("/healthz", http.StatusOK, "ok")
	get("/readyz", http.StatusServiceUnavailable, "draining")
	get("/", http.StatusNotFound, "")
}
