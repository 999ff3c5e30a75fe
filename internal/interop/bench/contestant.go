package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"example.com/routeguide/internal/process"
)

// contestant is a server under test.
type contestant struct {
	name    string
	dir     string // a folder in the module of pkg
	pkg     string
	flags   []string // of go build
	args    []string
	env     []string
	modes   func(mode) bool // whether to measure a mode
	stock   bool            // grpc-go's RouteGuide server, which does not support port 0
	ours    bool
	live    *liveService // how it is followed
	keeps   bool         // its notes from round to round
	against bool         // the others are compared with it, too
	program string       // path of the binary

	profileFile string // for a CPU profile of a round of live notes, of a server with --admin; empty is none
}

const (
	stockServer    = "google.golang.org/grpc/examples/route_guide/server"
	stockBroadcast = "example.com/routeguide/internal/interop/broadcast"
	ourServer      = "example.com/routeguide/server"
	floor          = "example.com/routeguide/server/internal/floor"
)

// allContestants returns the servers under test. The first one that is measured in a mode is the reference.
func allContestants(folder string, options *options) []*contestant {
	routeGuide := func(m mode) bool { return !m.broadcast && !m.live }
	ours := func(m mode) bool { return !m.broadcast }
	peer := func(m mode) bool { return m.peer }
	durable := func(m mode) bool { return m.durable }
	echo := func(m mode) bool { return m.echo }
	broadcast := func(m mode) bool { return m.broadcast }
	tls := options.tlsArgs()
	stockArgs := []string(nil)
	if options.tls {
		stockArgs = []string{"-tls", "-cert_file", options.certificate, "-key_file", options.key}
	}
	contestants := []*contestant{
		{name: "grpc-go", dir: ".", pkg: stockServer, args: stockArgs, stock: true, modes: routeGuide},
		{name: "grpc-go broadcast", dir: ".", pkg: stockBroadcast, args: tls, modes: broadcast},
		{name: "Centrifugo " + centrifugoVersion, pkg: centrifugoPackage, live: centrifugo, modes: peer},
		{name: "ours, memory", dir: "../..", pkg: ourServer, args: serverArgs("memory:", options), modes: ours, ours: true, live: noteService},
		{
			name: fmt.Sprintf("ours, pebble grown by %d", options.grow), dir: "../..", pkg: ourServer,
			args: serverArgs("pebble:"+filepath.Join(folder, "notes"), options), modes: durable, ours: true, keeps: true,
		},
		{name: "echo on our HTTP server", dir: "../..", pkg: floor, args: tls, modes: echo},
		{name: "echo on net/http", dir: "../..", pkg: floor, args: append([]string{"-bare"}, tls...), modes: echo},
		{name: "broadcast on our HTTP server", dir: "../..", pkg: floor, args: append([]string{"-broadcast"}, tls...), modes: broadcast},
		{name: "broadcast on net/http", dir: "../..", pkg: floor, args: append([]string{"-broadcast", "-bare"}, tls...), modes: broadcast},
	}
	if command := strings.Fields(options.against); len(command) > 0 {
		args := append([]string{"--store", "memory:", "--listen", "127.0.0.1:0"}, tls...)
		contestants = append(contestants, &contestant{
			name: "ours, " + strings.Join(append([]string{filepath.Base(command[0])}, command[1:]...), " "), program: command[0], args: append(args, command[1:]...), modes: ours, ours: true, live: noteService, against: true,
		})
	}
	return contestants
}

// serverArgs returns the arguments of our server with a store.
func serverArgs(store string, options *options) []string {
	args := append([]string{"--store", store, "--listen", "127.0.0.1:0"}, options.tlsArgs()...)
	return append(args, strings.Fields(options.serverArgs)...)
}

// variants returns our server as it is released, and with other build and runtime settings.
func variants(folder string, options *options) ([]*contestant, error) {
	args := serverArgs("memory:", options)
	chats := func(m mode) bool { return !m.broadcast && !m.live }
	plain := &contestant{name: "default", dir: "../..", pkg: ourServer, args: args, modes: chats, ours: true}
	if err := build([]*contestant{plain}, folder); err != nil {
		return nil, err
	}
	merged := filepath.Join(folder, "merged.pprof")
	if err := mergedProfile([]*contestant{plain}, folder, merged, options); err != nil {
		return nil, err
	}
	return []*contestant{
		plain,
		{name: "PGO", dir: "../..", pkg: ourServer, flags: []string{"-pgo=" + merged}, args: args, modes: chats, ours: true},
		{name: "GOGC=200", dir: "../..", pkg: ourServer, env: []string{"GOGC=200"}, args: args, modes: chats, ours: true},
		{name: "GOGC=400", dir: "../..", pkg: ourServer, env: []string{"GOGC=400"}, args: args, modes: chats, ours: true},
	}, nil
}

func build(contestants []*contestant, folder string) (err error) {
	for _, contestant := range contestants {
		switch contestant.pkg {
		case "":
		case centrifugoPackage:
			contestant.program, err = installCentrifugo()
		default:
			contestant.program, err = process.Build(contestant.dir, contestant.pkg, folder, contestant.flags...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// start starts the server and waits until it listens.
func (c *contestant) start() (server *process.Process, address string, err error) {
	if c.pkg == centrifugoPackage {
		return startCentrifugo(c.program, c.env)
	}
	args := c.args
	if c.stock {
		port, err := freePort()
		if err != nil {
			return nil, "", err
		}
		args, address = append([]string{"-port", port}, args...), "127.0.0.1:"+port
	}
	if server, err = process.StartWith(c.env, c.program, args...); err != nil {
		return nil, "", err
	}
	if !c.stock {
		match, err := server.Await(`listen=(\S+)`)
		if err != nil {
			return nil, "", errors.Join(err, server.Kill())
		}
		return server, match[1], nil
	}
	if err := awaitListening(address); err != nil {
		return nil, "", errors.Join(err, server.Kill())
	}
	return server, address, nil
}

// end ends a server. One that keeps its notes gets the time to: the next round must not begin with what this one left
// to do.
func (c *contestant) end(server *process.Process) error {
	if c.keeps {
		return server.Stop()
	}
	return server.Kill()
}
