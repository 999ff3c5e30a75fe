// Command client talks to a RouteGuide server.
package main

import (
	"context"
	"io"
	"os"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/internal/command"
)

const description = `Play the four calls of the gRPC tutorials to a RouteGuide server, and print what comes, one line a message.

All protocols run over HTTP/2, so RouteChat works with each. A stock gRPC server takes --protocol grpc only.`

type flags struct {
	Addr     string `default:"http://localhost:50051" placeholder:"URL" help:"Call the server there (${default}). An https:// URL is called with TLS."`
	Protocol string `default:"connect" enum:"connect,grpc,grpcweb" placeholder:"connect|grpc|grpcweb" help:"Speak this protocol (${default})."`
	Codec    string `default:"proto" enum:"proto,json" placeholder:"proto|json" help:"Encode messages this way (${default})."`
}

func main() {
	os.Exit(command.Main("client", run))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var flags flags
	if _, err := command.Parse(&flags, "client", description, nil, args, stdout, stderr); err != nil {
		return err
	}
	client, err := routechat.New(flags.Addr, flags.options()...)
	if err != nil {
		return command.Usagef("--addr: %w", err)
	}
	defer client.Close()
	return play(ctx, client, stdout)
}

func (f *flags) options() []connect.ClientOption {
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
