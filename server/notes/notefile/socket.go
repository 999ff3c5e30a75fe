package notefile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"example.com/routeguide/server/notes"
)

// A Socket lets other processes of the same user read a store that only one process can have open. It
// is an HTTP server on a socket in the file system.
type Socket struct {
	server *http.Server
	served chan error
}

// socketTimeout is how long a reader may take to ask.
const socketTimeout = 10 * time.Second

// NewSocket serves a store on a socket at path, in place of what is left of an earlier one.
func NewSocket(ctx context.Context, path string, store notes.Store) (*Socket, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /export", func(response http.ResponseWriter, request *http.Request) {
		if _, err := Export(request.Context(), store, response, nil); err != nil {
			panic(http.ErrAbortHandler) // So the reader sees that the file is not whole.
		}
	})
	mux.HandleFunc("GET /stats", func(response http.ResponseWriter, request *http.Request) {
		stats, err := Count(request.Context(), store, nil)
		if err == nil {
			err = json.NewEncoder(response).Encode(stats)
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	socket := &Socket{
		server: &http.Server{Handler: mux, ReadHeaderTimeout: socketTimeout},
		served: make(chan error, 1),
	}
	go func() { socket.served <- socket.server.Serve(listener) }()
	return socket, nil
}

// Close ends the socket, and what is read from it.
func (s *Socket) Close() error {
	err := s.server.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// ExportFrom is [Export] for the store behind the socket at path.
func ExportFrom(ctx context.Context, path string, to io.Writer) error {
	return get(ctx, path, "/export", func(body io.Reader) error {
		_, err := io.Copy(to, body)
		return err
	})
}

// CountFrom is [Count] for the store behind the socket at path.
func CountFrom(ctx context.Context, path string) (stats Stats, err error) {
	err = get(ctx, path, "/stats", func(body io.Reader) error {
		return json.NewDecoder(body).Decode(&stats)
	})
	return stats, err
}

func get(ctx context.Context, path, what string, read func(io.Reader) error) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://store"+what, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("ask the server that has the store: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the server that has the store: it says %s", response.Status)
	}
	if err := read(response.Body); err != nil {
		return fmt.Errorf("read from the server that has the store: %w", err)
	}
	return nil
}
