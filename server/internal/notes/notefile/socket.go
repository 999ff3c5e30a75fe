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
	"path/filepath"
	"time"

	"example.com/routeguide/server/internal/notes"
)

// A Socket lets other processes of the same user read a store that only one process can have open. It is an
// HTTP server on a Unix domain socket.
type Socket struct {
	path   string
	server *http.Server
	served chan error
}

// socketTimeout is the read deadline of a request's headers.
const socketTimeout = 10 * time.Second

// NewSocket serves a store on a socket at path. It replaces a stale socket there.
func NewSocket(ctx context.Context, path string, store notes.Store) (*Socket, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := listen(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /export", func(response http.ResponseWriter, request *http.Request) {
		if _, err := Export(request.Context(), store, response, nil); err != nil {
			panic(http.ErrAbortHandler) // Abort the response: the reader must not take a truncated file for whole.
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
		path:   path,
		server: &http.Server{Handler: mux, ReadHeaderTimeout: socketTimeout},
		served: make(chan error, 1),
	}
	go func() { socket.served <- socket.server.Serve(listener) }()
	return socket, nil
}

// Close closes the socket and aborts the requests in flight.
func (s *Socket) Close() error {
	err := s.server.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if removed := os.Remove(s.path); !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return err
}

func listen(ctx context.Context, path string) (net.Listener, error) {
	var listener net.Listener
	err := withAddress(path, func(address string) (err error) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "unix", address)
		return err
	})
	if err != nil {
		return nil, err
	}
	if unix, ok := listener.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false) // The address may name another file by then: Close removes path.
	}
	return listener, nil
}

// maxAddress is the longest portable address of a Unix domain socket, in bytes: the smallest sun_path of any
// system, less its zero byte.
const maxAddress = 103

// withAddress calls use with an address of the socket at path, valid during the call. A path that is too long
// for an address is replaced by one through the file descriptor of its folder in Linux's /proc.
func withAddress(path string, use func(address string) error) error {
	if len(path) <= maxAddress {
		return use(path)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	descriptor := fmt.Sprintf("/proc/self/fd/%d", folder.Fd())
	if _, err := os.Stat(descriptor); err != nil {
		return fmt.Errorf("%s: the path of a socket is limited to %d bytes on this system: %w", path, maxAddress, err)
	}
	return use(filepath.Join(descriptor, filepath.Base(path)))
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
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (connection net.Conn, err error) {
		err = withAddress(path, func(address string) (err error) {
			connection, err = (&net.Dialer{}).DialContext(ctx, "unix", address)
			return err
		})
		return connection, err
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://store"+what, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("request from the server that has the store open: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("request from the server that has the store open: status %s", response.Status)
	}
	if err := read(response.Body); err != nil {
		return fmt.Errorf("read from the server that has the store open: %w", err)
	}
	return nil
}
