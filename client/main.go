// Command client talks to a RouteGuide server.
package main

import (
	"context"
	"io"
	"os"

	"connectrpc.com/connect"
	"github.com/alecthomas/kong"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/internal/command"
)

const description = `Talk to a RouteGuide server.

Without a command, or with "play": make the four calls of the gRPC tutorials, and print each message on a line. All protocols run over HTTP/2, so RouteChat works with each. A stock gRPC server needs --protocol grpc.

With "leave": leave a note at a place, once, however often the connection breaks.

With "follow": print the notes of a place or of a rectangle, and then each note as it is left, until Ctrl-C.

With "chat": type notes at a place, and see what others leave there.

With "load": measure throughput and latency of a server. See "client load --help".

Exit codes: 0 on success, 1 on an error, 2 on invalid flags.`

type flags struct {
	Play   playFlags   `cmd:"" default:"withargs" help:"Make the four calls of the tutorials (the default)."`
	Leave  leaveFlags  `cmd:"" help:"Leave a note at a place."`
	Follow followFlags `cmd:"" help:"Print notes as they are left."`
	Chat   chatFlags   `cmd:"" help:"Chat at a place."`
	Load   loadFlags   `cmd:"" help:"Put load on a server, and measure throughput and latency."`

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
	switch parsed.Command {
	case "leave <text>":
		return flags.Leave.run(ctx, stdout)
	case "follow":
		return flags.Follow.run(ctx, stdout, stderr)
	case "chat":
		return flags.Chat.run(ctx, os.Stdin, stdout, stderr)
	case "load":
		return flags.Load.run(ctx, stdout, stderr)
	default:
		return flags.Play.run(ctx, stdout)
	}
}

// callFlags are the flags of the commands that call RPCs: the server, and how to talk to it.
type callFlags struct {
	Addr     string `default:"http://localhost:50051" placeholder:"URL" help:"URL of the server (${default}). https:// means TLS."`
	Protocol string `default:"connect" enum:"connect,grpc,grpcweb" placeholder:"connect|grpc|grpcweb" help:"RPC protocol (${default})."`
	Codec    string `default:"proto" enum:"proto,json" placeholder:"proto|json" help:"Encoding of messages (${default})."`

	accessFlags `embed:""`
}

// client returns a client, which the caller must close.
func (f *callFlags) client() (*routechat.Client, error) {
	config, err := f.config(f.Addr)
	if err != nil {
		return nil, err
	}
	client, err := config.New(f.Addr, f.options()...)
	if err != nil {
		return nil, command.Usagef("--addr: %w", err)
	}
	return client, nil
}

func (f *callFlags) options() []connect.ClientOption {
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
