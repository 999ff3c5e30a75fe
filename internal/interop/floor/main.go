// Command floor is a bare net/http server that echoes request bodies: the lower bound for the cost of a chat on
// net/http. It is not a RouteGuide server.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"

	"example.com/routeguide/server/wire"
)

func main() {
	useWire := flag.Bool("wire", false, "use the listener of server/wire")
	flag.Parse()
	if err := run(*useWire); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(useWire bool) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "listen=%s\n", listener.Addr())
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: http.HandlerFunc(echo), Protocols: &protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1000}}
	if useWire {
		listener = wire.NewListener(listener, 0)
	}
	return server.Serve(listener)
}

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
