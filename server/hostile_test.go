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

// hostile is a client that sends arbitrary HTTP/2 frames.
type hostile struct{ *rawhttp2.Conn }

const (
	chatPath  = "/routeguide.RouteGuide/RouteChat"
	leavePath = "/routeguide.v1.NoteService/LeaveNote"
	grpcType  = "application/grpc"
)

// dialHostile opens a connection. Its deadline is one minute.
func dialHostile(address string, settings ...http2.Setting) (*hostile, error) {
	conn, err := rawhttp2.Dial(address, settings...)
	return &hostile{conn}, err
}

// open opens a stream with a gRPC call.
func (h *hostile) open(stream uint32, path string, more ...hpack.HeaderField) error {
	return h.Open(stream, path, grpcType, more...)
}

// sendNote sends a note.
func (h *hostile) sendNote(stream uint32, longitude int32, text string) error {
	note, err := proto.Marshal(&routeguide.RouteNote{Location: &routeguide.Point{Longitude: longitude}, Message: text})
	if err != nil {
		return err
	}
	return h.WriteData(stream, false, envelope(0, note))
}

// envelope returns an encoded message as an envelope.
func envelope(flags byte, encoded []byte) []byte {
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
			return errors.New("the server did not end the stream")
		}
		if err != nil {
			return nil // The connection is closed.
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

// sendAndAwaitStatus sends DATA within the flow-control window of a stream, and reads until a gRPC status arrives.
func (h *hostile) sendAndAwaitStatus(stream uint32, data []byte, want string) error {
	h.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	for window := 64<<10 - 1; ; {
		for len(data) > 0 && window > 0 {
			part := data[:min(len(data), window, 16<<10)]
			if err := h.WriteData(stream, false, part); err != nil {
				return err
			}
			data, window = data[len(part):], window-len(part)
		}
		frame, err := h.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.WindowUpdateFrame:
			if frame.StreamID == stream {
				window += int(frame.Increment)
			}
		case *http2.MetaHeadersFrame:
			for _, field := range frame.Fields {
				if field.Name == "grpc-status" && field.Value != want {
					return fmt.Errorf("got the status %s, want %s", field.Value, want)
				}
				if field.Name == "grpc-status" {
					return nil
				}
			}
		}
	}
}

// maxMemoryMiB is the limit of a server's peak memory during each attack.
const maxMemoryMiB = 512

// During each attack, the server keeps running in bounded memory, and answers a well-behaved chat.
func TestHostileClients(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
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
			var latencies []float64
			neighbour := make(chan error, 1)
			go func() {
				var err error
				latencies, err = wellBehavedChat(ctx, "http://"+address)
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
			peak, err := measure.Memory(server.PID(), "VmHWM")
			if err != nil {
				t.Fatal(err)
			}
			if peak > maxMemoryMiB<<20 {
				t.Errorf("peak memory %d MiB, want at most %d", peak>>20, maxMemoryMiB)
			}
			if len(latencies) > 0 {
				t.Logf("%s: peak memory %d MiB; well-behaved chat: %d replies, median %.1f ms, max %.1f ms",
					test.name, peak>>20, len(latencies), measure.Median(latencies), slices.Max(latencies))
			}
			if err := server.Stop(); err != nil {
				t.Errorf("graceful shutdown: %v", err)
			}
		})
	}
}

// wellBehavedChat chats until ctx ends, and returns the latencies of its replies in milliseconds.
func wellBehavedChat(ctx context.Context, url string) ([]float64, error) {
	client, err := routechat.New(url)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	stream, err := client.RouteChat(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	var latencies []float64
	for i := int32(0); ctx.Err() == nil; i++ {
		start := time.Now()
		if err := stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{Latitude: 5, Longitude: i}}); err != nil {
			return nil, err
		}
		if _, err := stream.Receive(); err != nil {
			return nil, err
		}
		latencies = append(latencies, float64(time.Since(start).Microseconds())/1000)
		time.Sleep(5 * time.Millisecond)
	}
	return latencies, errors.Join(stream.CloseRequest(), stream.CloseResponse())
}
