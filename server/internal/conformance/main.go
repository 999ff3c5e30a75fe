// Command conformance is the server under test of the Connect conformance suite
// (https://github.com/connectrpc/conformance): the suite's service on httpserver, wire and all middleware of service.
// The suite's runner starts it, and gives and gets the properties of the server by standard input and output. It is a
// module of its own, because the code of the suite's service is generated before it is built.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/guide"
	"example.com/routeguide/server/internal/httpserver"
	"example.com/routeguide/server/internal/notes/memorystore"
	"example.com/routeguide/server/internal/service"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	conformancev1 "example.com/routeguide/server/internal/conformance/gen/connectrpc/conformance/v1"
	"example.com/routeguide/server/internal/conformance/gen/connectrpc/conformance/v1/conformancev1connect"
)

const (
	// timeout is far longer than any call of the suite. The middleware that has timeouts takes part with it.
	timeout = 30 * time.Second
	// maxStreams is more than the suite's calls at a time.
	maxStreams = 1000
)

func main() {
	os.Exit(command.Main("conformance", run))
}

// run reads the properties of the server from standard input, writes its address to stdout, and serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var flags struct {
		HTTP2 string `name:"http2" default:"native" enum:"native,net/http" help:"As of our server."`
	}
	if _, err := command.Parse(&flags, "conformance", "Serve the Connect conformance suite. Its runner starts this program.", nil, args, stdout, stderr); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var request conformancev1.ServerCompatRequest
	if err := read(os.Stdin, &request); err != nil {
		return err
	}
	store := memorystore.New()
	running := service.New(guide.New(nil), service.Options{
		Chats:          chat.Options{Store: store},
		MessageBytes:   int(request.GetMessageReceiveLimit()),
		RequestTimeout: timeout,
		StallTimeout:   timeout,
		More: map[protoreflect.ServiceDescriptor]func(...connect.HandlerOption) (string, http.Handler){
			conformancev1.File_connectrpc_conformance_v1_service_proto.Services().ByName("ConformanceService"): newHandler,
		},
		Logger: logger,
	})
	defer running.Close()
	options := httpserver.Options{NetHTTP: flags.HTTP2 == "net/http", MaxStreams: maxStreams, StallTimeout: timeout, Logger: logger}
	if request.GetUseTls() {
		folder, err := os.MkdirTemp("", "conformance")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		files, err := writeCredentials(folder, &request)
		if err != nil {
			return err
		}
		if options.TLS, err = files.Config(logger); err != nil {
			return err
		}
	}
	server, err := httpserver.Listen(ctx, "127.0.0.1:0", running, options)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	address, ok := server.Addr().(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("%s is not an address of TCP", server.Addr())
	}
	if err := write(stdout, &conformancev1.ServerCompatResponse{
		Host:    address.IP.String(),
		Port:    uint32(address.Port),
		PemCert: request.GetServerCreds().GetCert(),
	}); err != nil {
		return err
	}
	<-ctx.Done()
	running.Drain()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	return errors.Join(server.Shutdown(ending), <-served, store.Close())
}

// newHandler is [conformancev1connect.NewConformanceServiceHandler] for our implementation, with more compressions, and
// with half-duplex bidirectional streams on HTTP/1.1.
func newHandler(options ...connect.HandlerOption) (string, http.Handler) {
	path, handler := conformancev1connect.NewConformanceServiceHandler(conformance{}, append(options, compressions())...)
	return path, http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		// Connect refuses all bidirectional streams on HTTP/1.1, because full duplex does not work there.
		if request.URL.Path == conformancev1connect.ConformanceServiceBidiStreamProcedure {
			request.ProtoMajor, request.ProtoMinor = 2, 0
		}
		handler.ServeHTTP(response, request)
	})
}

// writeCredentials writes the certificates in the request to files in folder.
func writeCredentials(folder string, request *conformancev1.ServerCompatRequest) (httpserver.TLSFiles, error) {
	var failed error
	file := func(name string, content []byte) string {
		if len(content) == 0 {
			return ""
		}
		path := filepath.Join(folder, name)
		failed = errors.Join(failed, os.WriteFile(path, content, 0o600))
		return path
	}
	return httpserver.TLSFiles{
		Certificate: file("certificate.pem", request.GetServerCreds().GetCert()),
		Key:         file("key.pem", request.GetServerCreds().GetKey()),
		ClientCA:    file("client.pem", request.GetClientTlsCert()),
	}, failed
}

// read reads a message with its size in front, in four bytes.
func read(from io.Reader, message proto.Message) error {
	var size uint32
	if err := binary.Read(from, binary.BigEndian, &size); err != nil {
		return fmt.Errorf("read %T: %w", message, err)
	}
	encoded := make([]byte, size)
	if _, err := io.ReadFull(from, encoded); err != nil {
		return fmt.Errorf("read %T: %w", message, err)
	}
	return proto.Unmarshal(encoded, message)
}

// write writes a message as read reads it.
func write(to io.Writer, message proto.Message) error {
	encoded, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	_, err = to.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(encoded))), encoded...))
	return err
}
