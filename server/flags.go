package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"example.com/routeguide/internal/command"
)

const serverDescription = `Serve RouteGuide, the service of the gRPC tutorials: places on a map, routes, and notes that people leave for one another.

One port takes Connect, gRPC and gRPC-Web, binary and JSON, over HTTP/2 and HTTP/1.1, with reflection and health: in clear (h2c, prior knowledge), or by TLS. RouteChat needs HTTP/2.

The same port serves a map page, on which people see the notes of others arrive and leave their own: open http://localhost:50051/ in a browser.

Try it: grpcurl -plaintext localhost:50051 list

"server notes --help" says how to export, import and count notes.

On SIGINT or SIGTERM, open chats get their pending replies. A second signal ends the server at once. Exit codes: 0 after a signal, 1 on an error, 2 on invalid flags.`

type serverFlags struct {
	serveFlags   `embed:"" group:"Serving:"`
	mapFlags     `embed:"" group:"Map page:"`
	storeFlags   `embed:"" group:"Store:"`
	accessFlags  `embed:"" group:"Access:"`
	limitFlags   `embed:"" group:"Limits (see docs/limits.md):"`
	observeFlags `embed:"" group:"Observability:"`

	Version kong.VersionFlag `env:"-" help:"Print version, revision and the version of Go, and exit."`
}

type serveFlags struct {
	Listen          string        `default:"localhost:50051" placeholder:"ADDR" help:"Listen on this address, host:port (${default}). Port 0 takes a free one; an empty host is every address of this machine."`
	HTTP2           string        `name:"http2" default:"native" enum:"native,net/http" placeholder:"native|net/http" help:"HTTP/2 server: this module's own, or that of Go's net/http as a way out (${default}). See docs/http2.md."`
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
	case f.RedisReplicas > 0 && !strings.HasPrefix(f.Store, "redis"):
		return command.Usagef("--redis-replicas goes with --store redis://HOST:PORT")
	}
	if f.Admin != "" && !f.Insecure && !isLoopback(ctx, f.Admin) {
		return command.Usagef("--admin %q has no authentication: want host:port where only this machine comes, such as localhost:50052, or --insecure if something else keeps others out", f.Admin)
	}
	if err := f.accessFlags.check(ctx, f.Listen); err != nil {
		return err
	}
	if err := f.mapFlags.check(); err != nil {
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
