// Command server serves RouteGuide.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/guide"
	"example.com/routeguide/server/h2c"
	"example.com/routeguide/server/notes"
	"example.com/routeguide/server/service"
)

const description = `Serve RouteGuide, the service of the gRPC tutorials: places on a map, routes, and notes that people leave for one another.

One port takes Connect, gRPC and gRPC-Web, binary and JSON, over HTTP/2 without TLS (h2c, prior knowledge) and HTTP/1.1, with reflection and health. RouteChat needs HTTP/2.

Try it: grpcurl -plaintext localhost:50051 list

SIGINT and SIGTERM end it: open chats get the replies they are owed. A second signal ends it at once. Exit codes: 0 after a signal, 1 on an error, 2 if the flags make no sense.`

// drainTimeout is how long open calls have to end once the server is told to.
const drainTimeout = 10 * time.Second

type flags struct {
	Listen    string     `default:"localhost:50051" placeholder:"ADDR" help:"Listen on ${default}: host:port. Port 0 takes a free one; an empty host is every address of this machine."`
	Notes     string     `default:"memory:" placeholder:"WHERE" help:"Keep notes there. \"memory:\", the default, forgets them when the server ends."`
	Features  string     `placeholder:"FILE" help:"Serve the features in this file, a JSON array of {\"location\": {\"latitude\": 1, \"longitude\": 2}, \"name\": \"...\"} in degrees times 10^7. By default, places in New Jersey and around New York."`
	LogFormat string     `default:"text" enum:"text,json" placeholder:"text|json" help:"Log to stderr in this format (${default})."`
	LogLevel  slog.Level `default:"info" placeholder:"LEVEL" help:"Log from this level on: debug, info, warn or error (${default})."`
}

func main() {
	os.Exit(command.Main("server", run))
}

// run serves until ctx ends, and then drains. It logs to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var flags flags
	if _, err := command.Parse(&flags, "server", description, args, stdout, stderr); err != nil {
		return err
	}
	logger := flags.logger(stderr)
	if err := flags.checkListen(ctx); err != nil {
		return command.Usagef("--listen %q: want host:port, such as localhost:50051: %w", flags.Listen, err)
	}
	features, err := flags.features()
	if err != nil {
		return err
	}
	guide := guide.New(features)
	store, err := openStore(flags.Notes)
	if err != nil {
		return err
	}
	service := service.New(guide, service.Options{Store: store, Logger: logger})
	server, err := h2c.Listen(ctx, flags.Listen, service, logger)
	if err != nil {
		return errors.Join(fmt.Errorf("--listen %s: %w", flags.Listen, err), store.Close())
	}
	logger.InfoContext(ctx, "serving RouteGuide", "listen", server.Addr().String(), "features", guide.Len(), "notes", flags.Notes)
	return errors.Join(serve(ctx, server, service, logger), store.Close())
}

// serve lets server and service do their work until ctx ends or the server fails, and then ends
// them.
func serve(ctx context.Context, server *h2c.Server, service *service.Service, logger *slog.Logger) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	logger.Info("draining: open chats get the replies they are owed", "timeout", drainTimeout)
	service.Drain()
	timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := server.Shutdown(timeout); err != nil {
		logger.Warn("closed connections that did not end in time", "timeout", drainTimeout)
	}
	if err := <-served; err != nil {
		return err
	}
	logger.Info("ended")
	return nil
}

func (f *flags) logger(stderr io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(stderr, options))
	}
	return slog.New(slog.NewTextHandler(stderr, options))
}

func (f *flags) checkListen(ctx context.Context) error {
	_, port, err := net.SplitHostPort(f.Listen)
	if err != nil {
		return err
	}
	_, err = net.DefaultResolver.LookupPort(ctx, "tcp", port)
	return err
}

func (f *flags) features() ([]*routeguide.Feature, error) {
	if f.Features == "" {
		return guide.Default()
	}
	file, err := os.ReadFile(f.Features)
	if err != nil {
		return nil, fmt.Errorf("--features: %w", err)
	}
	features, err := guide.Parse(file)
	if err != nil {
		return nil, fmt.Errorf("--features %s: %w", f.Features, err)
	}
	return features, nil
}

// openStore opens the store of notes at where.
func openStore(where string) (notes.Store, error) {
	if scheme, _, _ := strings.Cut(where, ":"); scheme != "memory" || where != "memory:" {
		return nil, command.Usagef("--notes %q: want memory:", where)
	}
	return notes.NewMemory(), nil
}
