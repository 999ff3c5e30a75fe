package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/internal/admin"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/httpserver"
	"example.com/routeguide/server/internal/logwriter"
	"example.com/routeguide/server/internal/memorylimit"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/notefile"
	"example.com/routeguide/server/internal/notes/pebblestore"
	"example.com/routeguide/server/internal/service"
	"example.com/routeguide/server/internal/telemetry"
)

// abortTimeout is the deadline for aborted chats to send their status.
const abortTimeout = time.Second

// closeTimeout is the deadline for calls to end once their connections are closed.
const closeTimeout = 5 * time.Second

// runServer serves until ctx ends, and then drains. It logs to stderr.
func runServer(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var flags serverFlags
	parsed, err := command.Parse(&flags, "server", serverDescription, map[string]string{"stores": storesHelp}, args, stdout, stderr)
	if err != nil {
		return err
	}
	if err := flags.check(ctx); err != nil {
		return err
	}
	// The reader of the log may end before the server does. By default, the next write would then end the process.
	signal.Ignore(syscall.SIGPIPE)
	logger, logs := newLogger(stderr, flags.LogFormat, flags.LogLevel)
	defer logs.Close() // Nobody is left to whom an error could be reported.
	for _, line := range parsed.Renamed {
		logger.WarnContext(ctx, "a flag has a new name", "flag", line)
	}
	features, err := readFeatures(flags.Features)
	if err != nil {
		return err
	}
	tls, err := flags.tls(logger)
	if err != nil {
		return err
	}
	require, err := flags.require(logger)
	if err != nil {
		return err
	}
	telem, err := telemetry.Start(ctx, flags.Admin != "", logger)
	if err != nil {
		return err
	}
	defer shutDownTelemetry(telem, logger)
	health := service.NewHealth(logger)
	store, err := openStore(flags.Store, storeOptions{
		maxBytes: int64(flags.MaxStore),
		replicas: flags.RedisReplicas,
		logger:   logger,
		health:   health.SetStore,
		fatal: func(err error) {
			// The store must not be written any more, not even to close it.
			_ = logs.Close()
			command.Report(stderr, "server", err)
			os.Exit(command.ExitError)
		},
		committed: telem.RecordCommit,
	})
	if err != nil {
		return err
	}
	logger.InfoContext(ctx, "keeping notes", keepingNotes(flags.Store)...)
	guide := guide.New(features)
	service := service.New(guide, service.Options{
		Chats:             flags.chats(store, flags.History),
		Health:            health,
		NotesPerSecond:    flags.noteRate(ctx, flags.Listen),
		MaxChats:          flags.MaxChats,
		MaxFollowers:      flags.MaxFollowers,
		SnapshotLocations: flags.MaxSnapshot,
		Retention:         flags.Retention,
		MaxCalls:          flags.MaxCalls,
		ClientShare:       flags.clientShare(ctx, flags.Listen),
		MessageBytes:      int(flags.MaxMessage),
		ArrivingBytes:     int(flags.MaxArriving),
		RequestTimeout:    flags.RequestTimeout,
		StallTimeout:      flags.StallTimeout,
		MaxChatAge:        flags.MaxChatAge,
		Origins:           flags.CORSOrigins,
		Require:           require,
		Interceptors:      telem.Interceptors(),
		Logger:            logger,
	})
	closeStore := func() error {
		service.Close()
		return store.Close()
	}
	handler, err := flags.withMap(service.Handler, flags.clientShare(ctx, flags.Listen), flags.StallTimeout)
	if err != nil {
		return errors.Join(err, closeStore())
	}
	server, err := httpserver.Listen(ctx, flags.Listen, handler, httpserver.Options{
		NetHTTP:        flags.HTTP2 == "net/http",
		TLS:            tls,
		MaxConnections: flags.MaxConnections,
		ClientShare:    flags.clientShare(ctx, flags.Listen),
		MaxStreams:     flags.MaxStreams,
		MaxUnread:      int64(flags.MaxUnread),
		MaxHeaderBytes: int(flags.MaxHeader),
		IdleTimeout:    flags.IdleTimeout,
		StallTimeout:   flags.StallTimeout,
		Logger:         logger,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("--listen %s: %w", flags.Listen, err), closeStore())
	}
	if err := telem.Register(metrics(service, server, logs)...); err != nil {
		return errors.Join(err, server.Close(), closeStore())
	}
	if flags.Admin != "" {
		adminServer, err := admin.Start(ctx, flags.Admin, admin.NewHandler(health.Ready, telem.Handler()), logger)
		if err != nil {
			return errors.Join(fmt.Errorf("--admin %s: %w", flags.Admin, err), server.Close(), closeStore())
		}
		defer adminServer.Close()
		logger.InfoContext(ctx, "serving metrics, health and profiles", "admin", adminServer.Addr().String())
	}
	background := startBackground(ctx, &flags, store, service, logger)
	about := []any{"listen", server.Addr().String(), "tls", tls != nil, "tokens", require != nil, "features", guide.Len(), "version", command.ThisBuild().String()}
	if !flags.NoMap {
		about = append(about, "map", mapURL(flags.Listen, server.Addr(), tls != nil))
	}
	logger.InfoContext(ctx, "serving RouteGuide", about...)
	err = serve(ctx, server, service, health, &flags, logger)
	background.stop()
	return errors.Join(err, closeStore())
}

// telemetryTimeout is the deadline for sending the last traces.
const telemetryTimeout = 5 * time.Second

func shutDownTelemetry(telem *telemetry.Telemetry, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), telemetryTimeout)
	defer cancel()
	if err := telem.Shutdown(ctx); err != nil {
		logger.Warn("the last traces could not be sent", "err", err)
	}
}

// serve serves until ctx ends or the server fails, and then shuts down gracefully.
func serve(ctx context.Context, server *httpserver.Server, service *service.Service, health *service.Health, flags *serverFlags, logger *slog.Logger) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	if flags.ShutdownDelay > 0 {
		logger.Info("shutdown: still serving, health is NOT_SERVING", "delay", flags.ShutdownDelay)
		health.Leave()
		select {
		case err := <-served:
			return err
		case <-time.After(flags.ShutdownDelay):
		}
	}
	logger.Info("shutdown: draining open chats", "timeout", flags.ShutdownTimeout)
	service.Drain()
	timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), flags.ShutdownTimeout)
	defer cancel()
	if server.Shutdown(timeout) != nil {
		logger.Warn("closing connections with calls that did not end in time", "timeout", flags.ShutdownTimeout)
		// To a client, a closed connection looks as if nothing was stored.
		service.Abort()
		timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
		defer cancel()
		_ = server.Shutdown(timeout) // What is left is closed.
		_ = server.Close()           // The listener is closed already.
		// The calls end at once, unless the store blocks them. The store closes last.
		select {
		case <-service.Drained():
		case <-time.After(closeTimeout):
		}
	}
	if err := <-served; err != nil {
		return err
	}
	logger.Info("ended")
	return nil
}

// background is the work beside serving: retention, the memory limit, and the socket for exports.
type background struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	socket *notefile.Socket
	logger *slog.Logger
}

// startBackground starts retention and the memory limit, and serves the store of a folder to other processes.
func startBackground(ctx context.Context, flags *serverFlags, store notes.Store, service *service.Service, logger *slog.Logger) *background {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	background := &background{cancel: cancel, logger: logger}
	if flags.Retention > 0 {
		background.work.Go(func() { notes.Retain(working, store, flags.Retention, service.OldestPending, logger) })
	}
	background.work.Go(func() { memorylimit.Follow(working, memorylimit.Base) })
	if dir, ok := pebbleDir(flags.Store); ok {
		var err error
		if background.socket, err = notefile.NewSocket(ctx, filepath.Join(dir, socketName), store); err != nil {
			logger.WarnContext(ctx, "notes cannot be exported while this server runs", "err", err)
		}
	}
	return background
}

func (b *background) stop() {
	b.cancel()
	b.work.Wait()
	if b.socket != nil {
		if err := b.socket.Close(); err != nil {
			b.logger.Warn("the socket for exports was not closed", "err", err)
		}
	}
}

// keepingNotes returns the attributes of a store for the log.
func keepingNotes(where string) []any {
	about := []any{"notes", redactedStore(where)}
	if dir, ok := pebbleDir(where); ok {
		if absolute, err := filepath.Abs(dir); err == nil {
			dir = absolute
		}
		about = append(about, "folder", dir, "bytes", pebblestore.FolderSize(dir))
	}
	return about
}

// newLogger returns a non-blocking logger to stderr, and its writer, which the caller must close.
func newLogger(stderr io.Writer, format string, level slog.Level) (*slog.Logger, *logwriter.Writer) {
	var logger *slog.Logger
	logs := logwriter.New(stderr, func(lines int64) {
		logger.Warn("log lines were dropped because stderr was blocked", "lines", lines)
	})
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		logger = slog.New(slog.NewJSONHandler(logs, options))
	} else {
		logger = slog.New(slog.NewTextHandler(logs, options))
	}
	return logger, logs
}

func readFeatures(path string) ([]*routeguide.Feature, error) {
	if path == "" {
		return guide.Default()
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--features: %w", err)
	}
	features, err := guide.Parse(file)
	if err != nil {
		return nil, fmt.Errorf("--features %s: %w", path, err)
	}
	return features, nil
}
