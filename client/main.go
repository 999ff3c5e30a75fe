// Command client talks to a RouteGuide server.
package main

import (
	"context"
	"io"
	"os"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"

	"example.com/routeguide/internal/command"
)

const description = `Talk to a RouteGuide server.

Without a command, or with "play": make the four calls of the gRPC tutorials, and print each message on a line. All protocols run over HTTP/2, so RouteChat works with each. A stock gRPC server needs --protocol grpc.

With "load": measure throughput and latency of a server. See "client load --help".

Exit codes: 0 on success, 1 on an error, 2 on invalid flags.`

type flags struct {
	Play playFlags `cmd:"" default:"withargs" help:"Make the four calls of the tutorials (the default)."`
	Load loadFlags `cmd:"" help:"Put load on a server, and measure throughput and latency."`

	Version kong.VersionFlag `env:"-" help:"Print the version, the revision and the Go version, and exit."`
}

func main() {
	os.Exit(command.Main("client", run))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var flags flags
	parsed, err := command.Parse(&flags, "client", description, nil, args, stdout, stderr)
	if err != nil {
		return err
	}
	if parsed.Command == "load" {
		return flags.Load.run(ctx, stdout, stderr)
	}
	return flags.Play.run(ctx, stdout)
}

type playFlags struct {
	Addr     string `default:"http://localhost:50051" placeholder:"URL" help:"URL of the server (${default}). https:// means TLS."`
	Protocol string `default:"connect" enum:"connect,grpc,grpcweb" placeholder:"connect|grpc|grpcweb" help:"RPC protocol (${default})."`
	Codec    string `default:"proto" enum:"proto,json" placeholder:"proto|json" help:"Encoding of messages (${default})."`

	accessFlags `embed:""`
}

func (f *playFlags) run(ctx context.Context, stdout io.Writer) error {
	config, err := f.config(f.Addr)
	if err != nil {
		return err
	}
	client, err := config.New(f.Addr, f.options()...)
	if err != nil {
		return command.Usagef("--addr: %w", err)
	}
	defer client.Close()
	return play(ctx, client, stdout)
}

func (f *playFlags) options() []connect.ClientOption {
	var options []connect.ClientOption
	switch f.Protocol {
	case "grpc":
		options = append(options, connect.WithGRPC())
	case "grpcweb":
		options = append(options, connect.WithGRPCWeb())
	}
	if f.Codec == "json" {
		options = append(options, connect.WithProtoJSON())
	}
	return options
}
