package main

import (
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return "", err
	}
	return port, listener.Close()
}

func awaitListening(address string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			return connection.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// connections are those of grpc-go's client. Each connects with its first call.
type connections []*grpc.ClientConn

func dial(address string, number int, options *options, dialOptions ...grpc.DialOption) (connections connections, err error) {
	transport := insecure.NewCredentials()
	if options.tls {
		if transport, err = credentials.NewClientTLSFromFile(options.certificate, ""); err != nil {
			return nil, err
		}
	}
	dialOptions = append(dialOptions, grpc.WithTransportCredentials(transport))
	for range number {
		connection, err := grpc.NewClient(address, dialOptions...)
		if err != nil {
			return nil, errors.Join(err, connections.close())
		}
		connections = append(connections, connection)
	}
	return connections, nil
}

func (c connections) close() error {
	var errs []error
	for _, connection := range c {
		errs = append(errs, connection.Close())
	}
	return errors.Join(errs...)
}
