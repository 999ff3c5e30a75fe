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

Without a command, or with "play": make the four calls of the gRPC tutorials, and print what comes, one line a message. All protocols run over HTTP/2, so RouteChat works with each. A stock gRPC server takes --protocol grpc only.

With "load": measure how fast a server answers. See "client load --help".

Exit codes: 0 if all went well, 1 on an error, 2 if the flags make no sense.`

type flags struct {
	Play playFlags `cmd:"" default:"withargs" help:"Make the four calls of the tutorials (the default)."`
	Load loadFlags `cmd:"" help:"Put load on a server, and say how fast it answers."`

	Version kong.VersionFlag `env:"-" help:"Print version, revision and the version of Go, and exit."`
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
	Addr     string `default:"http://localhost:50051" placeholder:"URL" help:"Call the server there (${default}). An https:// URL is called with TLS."`
	Protocol string `default:"connect" enum:"connect,grpc,grpcweb" placeholder:"connect|grpc|grpcweb" help:"Speak this protocol (${default})."`
	Codec    string `default:"proto" enum:"proto,json" placeholder:"proto|json" help:"Encode messages this way (${default})."`

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
