package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/internal/admin"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/httpserver"
	"example.com/routeguide/server/internal/logwriter"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/notefile"
	"example.com/routeguide/server/internal/notes/pebblestore"
	"example.com/routeguide/server/internal/service"
	"example.com/routeguide/server/internal/telemetry"
)

const serverDescription = `Serve RouteGuide, the service of the gRPC tutorials: places on a map, routes, and notes that people leave for one another.

One port takes Connect, gRPC and gRPC-Web, binary and JSON, over HTTP/2 and HTTP/1.1, with reflection and health: in clear (h2c, prior knowledge), or by TLS. RouteChat needs HTTP/2.

Try it: grpcurl -plaintext localhost:50051 list

"server notes --help" says how to export, import and count notes.

On SIGINT or SIGTERM, open chats get the replies they are owed. A second signal ends the server at once. Exit codes: 0 after a signal, 1 on an error, 2 if the flags make no sense.`

// closeTimeout is the deadline for calls to end once their connections are closed.
const closeTimeout = 5 * time.Second

type serverFlags struct {
	serveFlags   `embed:"" group:"Serving:"`
	storeFlags   `embed:"" group:"Store:"`
	accessFlags  `embed:"" group:"Access:"`
	limitFlags   `embed:"" group:"Limits (see docs/limits.md):"`
	observeFlags `embed:"" group:"Observability:"`

	Version kong.VersionFlag `env:"-" help:"Print version, revision and the version of Go, and exit."`
}

type serveFlags struct {
	Listen          string        `default:"localhost:50051" placeholder:"ADDR" help:"Listen on this address, host:port (${default}). Port 0 takes a free one; an empty host is every address of this machine."`
	Features        string        `placeholder:"FILE" help:"Serve the features in this file, a JSON array of {\"location\": {\"latitude\": 1, \"longitude\": 2}, \"name\": \"...\"} in degrees times 10^7, or {\"feature\": [...]} around it. By default, places in New Jersey and around New York."`
	History         int           `default:"0" placeholder:"N" help:"Reply with the newest N notes of a location. 0, the default, is all. Nothing is deleted."`
	ShutdownTimeout time.Duration `renamed:"drain" default:"10s" placeholder:"DURATION" help:"After SIGTERM, wait this long for open calls to end (${default})."`
	ShutdownDelay   time.Duration `renamed:"drain-delay" default:"0s" placeholder:"DURATION" help:"After SIGTERM, serve on for this long while health says NOT_SERVING, so that load balancers see it (${default})."`
}

type storeFlags struct {
	Store     string        `renamed:"notes" default:"pebble:routeguide-notes" placeholder:"STORE" help:"Keep notes there (${default}). ${stores}"`
	Retention time.Duration `renamed:"keep" default:"0s" placeholder:"DURATION" help:"Delete notes that are older than this, such as 30d. 0, the default, keeps them for ever."`
	MaxStore  byteSize      `default:"0" placeholder:"BYTES" help:"Take no more notes when the folder of pebble:DIR is larger than this, such as 20GiB. 0, the default, is no bound."`
	// RedisReplicas is replicas in the URL of the store.
	RedisReplicas int `hidden:"" default:"0" help:"Answer a note when N replicas of its Redis node have it, too."`
}

type observeFlags struct {
	Admin     string     `placeholder:"ADDR" help:"Serve /metrics, /healthz, /readyz and profiles (/debug/pprof/) there, such as localhost:50052, without authentication. Off by default."`
	LogFormat string     `default:"text" enum:"text,json" placeholder:"text|json" help:"Format of the log, which goes to stderr (${default})."`
	LogLevel  slog.Level `default:"info" placeholder:"LEVEL" help:"Level of the log: debug, info, warn or error (${default})."`
}

// check returns a usage error if a flag makes no sense.
func (f *serverFlags) check(ctx context.Context) error {
	_, port, err := net.SplitHostPort(f.Listen)
	if err == nil {
		_, err = net.DefaultResolver.LookupPort(ctx, "tcp", port)
	}
	_, isPebble := pebbleDir(f.Store)
	switch {
	case err != nil:
		return command.Usagef("--listen %q: want host:port, such as localhost:50051: %w", f.Listen, err)
	case f.History < 0:
		return command.Usagef("--history %d: want a number of notes, or 0 for all", f.History)
	case f.Retention < 0:
		return command.Usagef("--retention %v: want a duration, or 0 for ever", f.Retention)
	case f.ShutdownTimeout < 0 || f.ShutdownDelay < 0:
		return command.Usagef("--shutdown-timeout %v, --shutdown-delay %v: want durations", f.ShutdownTimeout, f.ShutdownDelay)
	case f.RedisReplicas < 0:
		return command.Usagef("--redis-replicas %d: want a number of replicas, or 0", f.RedisReplicas)
	case f.MaxStore > 0 && !isPebble:
		return command.Usagef("--max-store bounds a folder: it goes with --store pebble:DIR")
	case f.RedisReplicas > 0 && isPebble:
		return command.Usagef("--redis-replicas goes with --store redis://HOST:PORT")
	}
	if f.Admin != "" && !f.Insecure && !isLoopback(ctx, f.Admin) {
		return command.Usagef("--admin %q has no authentication: want host:port where only this machine comes, such as localhost:50052, or --insecure if something else keeps others out", f.Admin)
	}
	if err := f.accessFlags.check(ctx, f.Listen); err != nil {
		return err
	}
	return f.limitFlags.check()
}

// isLoopback returns whether only this machine can reach an address.
func isLoopback(ctx context.Context, address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return false
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	return err == nil && !slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !ip.IsLoopback() })
}

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
		Chats:          flags.chats(store, flags.History),
		Health:         health,
		NotesPerSecond: flags.noteRate(ctx, flags.Listen),
		MaxChats:       flags.MaxChats,
		MaxCalls:       flags.MaxCalls,
		ClientShare:    flags.clientShare(ctx, flags.Listen),
		MessageBytes:   int(flags.MaxMessage),
		ArrivingBytes:  int(flags.MaxArriving),
		RequestTimeout: flags.RequestTimeout,
		StallTimeout:   flags.StallTimeout,
		MaxChatAge:     flags.MaxChatAge,
		Origins:        flags.CORSOrigins,
		Require:        require,
		Interceptors:   telem.Interceptors(),
		Logger:         logger,
	})
	defer service.Close()
	server, err := httpserver.Listen(ctx, flags.Listen, service, httpserver.Options{
		TLS:            tls,
		MaxConnections: flags.MaxConnections,
		ClientShare:    flags.clientShare(ctx, flags.Listen),
		MaxStreams:     flags.MaxStreams,
		MaxHeaderBytes: int(flags.MaxHeader),
		IdleTimeout:    flags.IdleTimeout,
		StallTimeout:   flags.StallTimeout,
		Logger:         logger,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("--listen %s: %w", flags.Listen, err), store.Close())
	}
	if err := telem.Register(metrics(service, server, logs)...); err != nil {
		return errors.Join(err, server.Close(), store.Close())
	}
	if flags.Admin != "" {
		adminServer, err := admin.Start(ctx, flags.Admin, admin.NewHandler(health.Ready, telem.Handler()), logger)
		if err != nil {
			return errors.Join(fmt.Errorf("--admin %s: %w", flags.Admin, err), server.Close(), store.Close())
		}
		defer adminServer.Close()
		logger.InfoContext(ctx, "serving metrics, health and profiles", "admin", adminServer.Addr().String())
	}
	background := startBackground(ctx, &flags, store, service, logger)
	logger.InfoContext(ctx, "serving RouteGuide", "listen", server.Addr().String(), "tls", tls != nil, "tokens", require != nil, "features", guide.Len(), "version", command.ThisBuild().String())
	err = serve(ctx, server, service, health, &flags, logger)
	background.stop()
	return errors.Join(err, store.Close())
}

// metrics are those that are read whenever they are scraped.
func metrics(service *service.Service, server *httpserver.Server, logs *logwriter.Writer) []telemetry.Metric {
	chats := func(count func(chat.Counts) int64) func() int64 {
		return func() int64 { return count(service.Counts()) }
	}
	return []telemetry.Metric{
		{Name: "routeguide.connections", Description: "Open connections.", Read: server.Connections},
		{Name: "routeguide.connections.refused", Monotonic: true, Description: "Connections closed at once, since their clients had their share.", Read: server.Refused},
		{Name: "routeguide.chats", Description: "Open chats.", Read: chats(func(c chat.Counts) int64 { return c.Chats })},
		{Name: "routeguide.calls", Description: "Open calls other than chats.", Read: service.Calls},
		{Name: "routeguide.notes.arriving.bytes", Description: "Bytes of notes larger than 4 KiB that have arrived in part.", Read: service.Arriving},
		{Name: "routeguide.calls.refused", Monotonic: true, Description: "Calls and large messages refused by a quota.", Read: service.Refused},
		{Name: "routeguide.calls.stalled", Monotonic: true, Description: "Calls reset because of a slow consumer, other than chats reset in a reply.", Read: service.Stalled},
		{Name: "routeguide.replies.pending", Description: "Notes that wait for their replies.", Read: chats(func(c chat.Counts) int64 { return c.Pending })},
		{Name: "routeguide.notes.received", Monotonic: true, Description: "Notes received.", Read: chats(func(c chat.Counts) int64 { return c.Received })},
		{Name: "routeguide.notes.sent", Monotonic: true, Description: "Notes sent in replies.", Read: chats(func(c chat.Counts) int64 { return c.Sent })},
		{Name: "routeguide.chats.stalled", Monotonic: true, Description: "Chats reset because of a slow consumer.", Read: chats(func(c chat.Counts) int64 { return c.Stalled })},
		{Name: "routeguide.chats.shed", Monotonic: true, Description: "Chats ended because too many notes of all chats waited for replies.", Read: chats(func(c chat.Counts) int64 { return c.Shed })},
		{Name: "routeguide.store.errors", Monotonic: true, Description: "Chats ended by an error of the store.", Read: service.StoreErrors},
		{Name: "routeguide.log.dropped", Monotonic: true, Description: "Log lines dropped because stderr did not take them.", Read: logs.Dropped},
		{Name: "routeguide.panics", Monotonic: true, Description: "Calls ended by a panic.", Read: service.Panics},
	}
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
		logger.Info("draining: serving on, while health says NOT_SERVING", "delay", flags.ShutdownDelay)
		health.Leave()
		select {
		case err := <-served:
			return err
		case <-time.After(flags.ShutdownDelay):
		}
	}
	logger.Info("draining: open chats get the replies they are owed", "timeout", flags.ShutdownTimeout)
	service.Drain()
	timeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), flags.ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(timeout); err != nil {
		logger.Warn("closed connections that did not end in time", "timeout", flags.ShutdownTimeout)
		// Their chats end at once, unless the store blocks them. The store closes last.
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

// background is the work beside serving: retention, and the socket for exports.
type background struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	socket *notefile.Socket
	logger *slog.Logger
}

// startBackground starts retention, and serves the store of a folder to other processes.
func startBackground(ctx context.Context, flags *serverFlags, store notes.Store, service *service.Service, logger *slog.Logger) *background {
	retaining, cancel := context.WithCancel(context.WithoutCancel(ctx))
	background := &background{cancel: cancel, logger: logger}
	if flags.Retention > 0 {
		background.work.Go(func() { notes.Retain(retaining, store, flags.Retention, service.OldestPending, logger) })
	}
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
	about := []any{"notes", shownStore(where)}
	if dir, ok := pebbleDir(where); ok {
		if absolute, err := filepath.Abs(dir); err == nil {
			dir = absolute
		}
		about = append(about, "folder", dir, "bytes", pebblestore.FolderSize(dir))
	}
	return about
}

// newLogger returns a logger to stderr that never waits for it, and the writer that is to be closed at the end.
func newLogger(stderr io.Writer, format string, level slog.Level) (*slog.Logger, *logwriter.Writer) {
	var logger *slog.Logger
	logs := logwriter.New(stderr, func(lines int64) {
		logger.Warn("log lines were dropped, since stderr did not take them", "lines", lines)
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
