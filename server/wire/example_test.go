package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"example.com/routeguide/server/h2"
	"example.com/routeguide/server/wire"
)

// countdown answers each number with all numbers down to 1, as envelopes.
func countdown(ctx context.Context, stream *connect.BidiStream[wrapperspb.UInt32Value, wrapperspb.UInt32Value]) error {
	wired, ok := wire.FromContext(ctx)
	if !ok {
		return connect.NewError(connect.CodeInternal, errors.New("no wire stream in the context: wrap the mux in wire.NewHandler"))
	}
	envelopes, ok := wired.Envelopes()
	if !ok {
		return connect.NewError(connect.CodeUnimplemented, errors.New("unsupported codec: binary messages only"))
	}
	// Envelopes need the response headers: Connect sends them with a nil message.
	if err := stream.Send(nil); err != nil {
		return err
	}
	for {
		from, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for number := from.GetValue(); number > 0; number-- {
			encoded, err := proto.Marshal(wrapperspb.UInt32(number))
			if err != nil {
				return err
			}
			if err := envelopes.Write(encoded); err != nil {
				return err
			}
		}
		// The client waits for the buffered numbers.
		if err := envelopes.Flush(); err != nil {
			return err
		}
	}
}

// Envelopes work for any Connect service: put wire's handler around the mux.
func Example() {
	mux := http.NewServeMux()
	mux.Handle("/example.Countdown/Count", connect.NewBidiStreamHandler("/example.Countdown/Count", countdown))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &h2.Server{Handler: wire.NewHandler(mux)}
	go server.Serve(listener)
	defer server.Close()

	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	client := connect.NewClient[wrapperspb.UInt32Value, wrapperspb.UInt32Value](
		&http.Client{Transport: transport}, "http://"+listener.Addr().String()+"/example.Countdown/Count", connect.WithGRPC())
	stream := client.CallBidiStream(context.Background())
	if err := stream.Send(wrapperspb.UInt32(3)); err != nil {
		log.Fatal(err)
	}
	for range 3 {
		number, err := stream.Receive()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(number.GetValue())
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
	// Output:
	// 3
	// 2
	// 1
}
