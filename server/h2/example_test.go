package h2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"example.com/routeguide/server/h2"
)

// sum answers each number with the sum of all so far.
func sum(_ context.Context, stream *connect.BidiStream[wrapperspb.Int64Value, wrapperspb.Int64Value]) error {
	total := int64(0)
	for {
		number, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		total += number.GetValue()
		if err := stream.Send(wrapperspb.Int64(total)); err != nil {
			return err
		}
	}
}

// A Connect service needs nothing but to be mounted. Stock gRPC clients can call it, too.
func ExampleServer() {
	mux := http.NewServeMux()
	mux.Handle("/example.Calculator/Sum", connect.NewBidiStreamHandler("/example.Calculator/Sum", sum))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &h2.Server{Handler: mux}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	client := connect.NewClient[wrapperspb.Int64Value, wrapperspb.Int64Value](
		&http.Client{Transport: &http.Transport{Protocols: &protocols}}, "http://"+listener.Addr().String()+"/example.Calculator/Sum", connect.WithGRPC())
	stream := client.CallBidiStream(context.Background())
	for number := range int64(3) {
		if err := stream.Send(wrapperspb.Int64(number + 1)); err != nil {
			log.Fatal(err)
		}
		total, err := stream.Receive()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(total.GetValue())
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()

	// Streams that are open may end before Shutdown returns. GOAWAY makes the client close its connection.
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-served)
	// Output:
	// 1
	// 3
	// 6
	// http: Server closed
}
