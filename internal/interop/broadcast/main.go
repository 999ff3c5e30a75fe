// Command broadcast is a bare grpc-go server that sends one message to many streams, for benchmarks: each open ListFeatures
// gets the feature of each GetFeature, as from the broadcast of server/internal/floor. It is encoded once, and the goroutine of each
// call sends it.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	pb "google.golang.org/grpc/examples/route_guide/routeguide"
)

func main() {
	certificate := flag.String("tls-cert", "", "serve TLS with the certificate in this file")
	key := flag.String("tls-key", "", "private key of the certificate")
	flag.Parse()
	if err := run(*certificate, *key); err != nil {
		fmt.Fprintln(os.Stderr, "broadcast:", err)
		os.Exit(1)
	}
}

func run(certificate, key string) error {
	var options []grpc.ServerOption
	if certificate != "" {
		tls, err := credentials.NewServerTLSFromFile(certificate, key)
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(tls))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "listen=%s\n", listener.Addr())
	server := grpc.NewServer(options...)
	pb.RegisterRouteGuideServer(server, &broadcaster{followers: make(map[chan *grpc.PreparedMsg]pb.RouteGuide_ListFeaturesServer)})
	return server.Serve(listener)
}

type broadcaster struct {
	pb.UnimplementedRouteGuideServer

	mu        sync.Mutex // guards followers
	followers map[chan *grpc.PreparedMsg]pb.RouteGuide_ListFeaturesServer
}

// ListFeatures sends headers once it follows.
func (b *broadcaster) ListFeatures(_ *pb.Rectangle, stream pb.RouteGuide_ListFeaturesServer) error {
	follower := make(chan *grpc.PreparedMsg, 1)
	b.mu.Lock()
	b.followers[follower] = stream
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.followers, follower)
		b.mu.Unlock()
	}()
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for {
		select {
		case feature := <-follower:
			if err := stream.SendMsg(feature); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// GetFeature broadcasts a feature at a point. It skips a follower that has not taken the one before.
func (b *broadcaster) GetFeature(_ context.Context, point *pb.Point) (*pb.Feature, error) {
	feature := &pb.Feature{Name: "a name as long as a note's text", Location: point}
	b.mu.Lock()
	defer b.mu.Unlock()
	var prepared *grpc.PreparedMsg
	for follower, stream := range b.followers {
		if prepared == nil {
			// What a message is encoded to depends on the codec and compressor of a stream, which is the same for all.
			prepared = &grpc.PreparedMsg{}
			if err := prepared.Encode(stream, feature); err != nil {
				return nil, err
			}
		}
		select {
		case follower <- prepared:
		default:
		}
	}
	return feature, nil
}
