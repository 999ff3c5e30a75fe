// Command floor serves bare handlers, for benchmarks: what the HTTP server costs a service at the least. An echo takes any
// streaming call, and a broadcast takes the calls of the RouteGuide contract that it needs. It is not a RouteGuide server.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"

	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/internal/httpserver"
)

// maxStreams is SETTINGS_MAX_CONCURRENT_STREAMS, as in the RouteGuide server.
const maxStreams = 1000

func main() {
	os.Exit(command.Main("floor", run))
}

type options struct {
	broadcast, bare  bool
	certificate, key string
}

func run(ctx context.Context, args []string, _, stderr io.Writer) error {
	var options options
	flags := flag.NewFlagSet("floor", flag.ContinueOnError)
	flags.BoolVar(&options.broadcast, "broadcast", false, "broadcast, instead of an echo")
	flags.BoolVar(&options.bare, "bare", false, "serve on net/http alone, instead of the HTTP server of RouteGuide")
	flags.StringVar(&options.certificate, "tls-cert", "", "serve TLS with the certificate in this file")
	flags.StringVar(&options.key, "tls-key", "", "private key of the certificate")
	if err := flags.Parse(args); err != nil {
		return command.Usagef("%w", err)
	}
	handler := http.Handler(http.HandlerFunc(echo))
	if options.broadcast {
		handler = newBroadcaster()
	}
	address, serve, err := listen(ctx, handler, &options)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "listen=%s\n", address)
	return serve()
}

// listen listens on a free port, and returns the function that serves.
func listen(ctx context.Context, handler http.Handler, options *options) (address net.Addr, serve func() error, err error) {
	const free = "127.0.0.1:0"
	if options.bare {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", free)
		if err != nil {
			return nil, nil, err
		}
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		protocols.SetHTTP2(true)
		server := &http.Server{Handler: handler, Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams}}
		return listener.Addr(), func() error {
			if options.certificate != "" {
				return server.ServeTLS(listener, options.certificate, options.key)
			}
			return server.Serve(listener)
		}, nil
	}
	var config *tls.Config
	if options.certificate != "" {
		files := httpserver.TLSFiles{Certificate: options.certificate, Key: options.key}
		if config, err = files.Config(slog.Default()); err != nil {
			return nil, nil, err
		}
	}
	server, err := httpserver.Listen(ctx, free, handler, httpserver.Options{TLS: config, MaxStreams: maxStreams})
	if err != nil {
		return nil, nil, err
	}
	return server.Addr(), server.Serve, nil
}

// echo sends back the bytes of a gRPC call.
func echo(response http.ResponseWriter, request *http.Request) {
	response.Header().Set("Content-Type", "application/grpc")
	response.Header().Set("Trailer", "Grpc-Status")
	controller := http.NewResponseController(response)
	if err := controller.Flush(); err != nil {
		return
	}
	buffer := make([]byte, 4<<10)
	for {
		n, err := request.Body.Read(buffer)
		if n > 0 {
			if _, err := response.Write(buffer[:n]); err != nil {
				return
			}
			if err := controller.Flush(); err != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	response.Header().Set("Grpc-Status", "0")
}
