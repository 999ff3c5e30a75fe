package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/process"
	"example.com/routeguide/internal/rawhttp2"
)

// hostile is a client that speaks HTTP/2 as it likes.
type hostile struct{ *rawhttp2.Conn }

const (
	chatPath = "/routeguide.RouteGuide/RouteChat"
	grpcType = "application/grpc"
)

// intrude opens a connection and exchanges the first frames. It gives up after a minute.
func intrude(address string, settings ...http2.Setting) (*hostile, error) {
	conn, err := rawhttp2.Dial(address, settings...)
	return &hostile{conn}, err
}

// open begins a call by gRPC.
func (h *hostile) open(stream uint32, path string, more ...hpack.HeaderField) error {
	return h.Open(stream, path, grpcType, more...)
}

// leave writes a note.
func (h *hostile) leave(stream uint32, longitude int32, text string) error {
	note, err := proto.Marshal(&routeguide.RouteNote{Location: &routeguide.Point{Longitude: longitude}, Message: text})
	if err != nil {
		return err
	}
	return h.WriteData(stream, false, message(0, note))
}

// message returns an encoded message with its prefix.
func message(flags byte, encoded []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(encoded))), encoded...)
}

// awaitEnd reads until the server closes the connection or resets a stream.
func (h *hostile) awaitEnd() error {
	for {
		frame, err := h.ReadFrame()
		if _, ok := frame.(*http2.RSTStreamFrame); ok {
			return nil
		}
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return errors.New("the server did not end it")
		}
		if err != nil {
			return nil // That is the end.
		}
	}
}

// awaitReset reads until the server resets a stream.
func (h *hostile) awaitReset(stream uint32) error {
	for {
		frame, err := h.ReadFrame()
		if err != nil {
			return err
		}
		if reset, ok := frame.(*http2.RSTStreamFrame); ok && reset.StreamID == stream {
			return nil
		}
	}
}

// awaitStatus reads until a status of gRPC comes.
func awaitStatus(h *hostile, want string) error {
	h.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	for {
		frame, err := h.ReadFrame()
		if err != nil {
			return err
		}
		headers, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		for _, field := range headers.Fields {
			if field.Name == "grpc-status" && field.Value != want {
				return fmt.Errorf("got the status %s, want %s", field.Value, want)
			}
			if field.Name == "grpc-status" {
				return nil
			}
		}
	}
}

// boundMiB is how much memory a server takes at the most, whatever is done to it here.
const boundMiB = 512

// Whatever a hostile client does, the server goes on, takes bounded memory, and answers the well-behaved chat
// beside it.
func TestHostileClients(t *testing.T) {
	program, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range attacks {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server, address, err := process.StartServer(program, append([]string{"--store", "memory:"}, test.flags...)...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := server.Kill(); err != nil {
					t.Error(err)
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			var took []float64
			neighbour := make(chan error, 1)
			go func() {
				var err error
				took, err = beside(ctx, "http://"+address)
				neighbour <- err
			}()
			err = test.attack(t.Context(), address)
			cancel()
			if err := <-neighbour; err != nil {
				t.Errorf("the well-behaved chat: %v", err)
			}
			if err != nil {
				t.Error(err)
			}
			most, err := measure.Memory(server.PID(), "VmHWM")
			if err != nil {
				t.Fatal(err)
			}
			if most > boundMiB<<20 {
				t.Errorf("the server took %d MiB, want %d at most", most>>20, boundMiB)
			}
			if len(took) > 0 {
				t.Logf("%s: memory: %d MiB at the most; the chat beside it: %d replies, median %.1f ms, slowest %.1f ms",
					test.name, most>>20, len(took), measure.Median(took), slices.Max(took))
			}
			if err := server.Stop(); err != nil {
				t.Errorf("the server did not end well: %v", err)
			}
		})
	}
}

// beside chats until ctx ends, and returns how long its replies took.
func beside(ctx context.Context, url string) ([]float64, error) {
	client, err := routechat.New(url)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	stream, err := client.RouteChat(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	var took []float64
	for i := int32(0); ctx.Err() == nil; i++ {
		start := time.Now()
		if err := stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{Latitude: 5, Longitude: i}}); err != nil {
			return nil, err
		}
		if _, err := stream.Receive(); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
		time.Sleep(5 * time.Millisecond)
	}
	return took, errors.Join(stream.CloseRequest(), stream.CloseResponse())
}
