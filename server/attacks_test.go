package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/internal/process"
	"example.com/routeguide/internal/rawhttp2"
)

// attacks are what hostile clients do. Each returns an error if the server does not defend itself.
var attacks = []struct {
	name   string
	flags  []string
	attack func(ctx context.Context, address string) error
}{
	{"never reads", []string{"--stall-timeout", "1s"}, func(_ context.Context, address string) error {
		h, err := requestLargeReplies(address)
		if err != nil {
			return err
		}
		defer h.Close()
		time.Sleep(3 * time.Second)
		return h.awaitEnd()
	}},
	{"reads a byte a second", []string{"--stall-timeout", "1s"}, func(_ context.Context, address string) error {
		h, err := requestLargeReplies(address)
		if err != nil {
			return err
		}
		defer h.Close()
		for i := 0; i < 4 && err == nil; i++ {
			_, err = h.Read(make([]byte, 1))
			time.Sleep(time.Second)
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, h) // The server must end the connection before the deadline.
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return err
		}
		return nil
	}},
	{"opens its window by one", []string{"--stall-timeout", "1s"}, func(_ context.Context, address string) error {
		h, err := dialHostile(address, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		if err != nil {
			return err
		}
		defer h.Close()
		err = h.open(1, chatPath)
		for i := 0; i < 10 && err == nil; i++ {
			err = h.sendNote(1, 3, strings.Repeat("x", 1000))
		}
		updates := make(chan struct{})
		go func() {
			defer close(updates)
			for h.WriteWindowUpdate(1, 1) == nil {
				time.Sleep(50 * time.Millisecond)
			}
		}()
		err = errors.Join(err, h.awaitEnd(), h.Close())
		<-updates
		return err
	}},
	{"opens and resets", nil, func(_ context.Context, address string) error {
		var connections sync.WaitGroup
		defer connections.Wait()
		for range 100 {
			h, err := dialHostile(address)
			if err != nil {
				return err
			}
			h.Discard()
			var frames bytes.Buffer
			framer := http2.NewFramer(&frames, nil)
			longTimeout := hpack.HeaderField{Name: "grpc-timeout", Value: "1000H"}
			for i := range uint32(5000) {
				err = errors.Join(err, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: h.Block(chatPath, grpcType, longTimeout), EndHeaders: true}),
					framer.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
			}
			if err != nil {
				return err
			}
			connections.Go(func() {
				_, _ = h.Write(frames.Bytes()) // The server may close the connection.
				time.Sleep(time.Second)
				_ = h.Close()
			})
		}
		return nil
	}},
	{"sends and resets", nil, func(ctx context.Context, address string) error {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		var connections sync.WaitGroup
		defer connections.Wait()
		for range 8 {
			h, err := dialHostile(address)
			if err != nil {
				return err
			}
			h.Discard()
			connections.Go(func() {
				var err error
				for stream := uint32(1); ctx.Err() == nil && err == nil; stream += 2 {
					err = h.open(stream, "/nowhere")
					for range 4 {
						err = errors.Join(err, h.WriteData(stream, false, make([]byte, 15<<10)))
					}
					err = errors.Join(err, h.WriteRSTStream(stream, http2.ErrCodeCancel)) // The server may close the connection.
				}
				_ = h.Close()
			})
		}
		return nil
	}},
	{"opens streams after an error", nil, func(_ context.Context, address string) error {
		h, err := requestLargeReplies(address)
		if err != nil {
			return err
		}
		defer h.Close()
		time.Sleep(time.Second)             // The server's writes are blocked now, so its GOAWAY is, too.
		_ = h.WriteWindowUpdate(0, 1<<31-1) // Overflows the window: a connection error.
		block := h.Block(chatPath, grpcType)
		for stream := uint32(3); stream < 2_000_000; stream += 2 {
			if err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true}); err != nil {
				return nil // The server has closed the connection.
			}
		}
		return errors.New("the server does not close the connection")
	}},
	{"does not read responses to many calls", nil, func(_ context.Context, address string) error {
		return floodCalls(address, "/routeguide.RouteGuide/GetFeature", "application/json", []byte("{}"), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	}},
	{"exceeds the note rate", []string{"--note-rate", "1000"}, func(_ context.Context, address string) error {
		note, err := proto.Marshal(&routeguide.RouteNote{Location: &routeguide.Point{}})
		if err != nil {
			return err
		}
		data := bytes.Repeat(envelope(0, note), 1000)
		for range 200 {
			conn, err := rawhttp2.DialFrom("127.0.0.2", address) // Another client than the well-behaved chat.
			if err != nil {
				return err
			}
			h := &hostile{conn}
			defer h.Close()
			h.Discard()
			for stream := uint32(1); stream < 20; stream += 2 {
				err := h.open(stream, chatPath)
				for range 6 {
					err = errors.Join(err, h.WriteData(stream, false, data))
				}
				if err != nil {
					return err
				}
			}
		}
		time.Sleep(time.Second)
		return nil
	}},
	{"floods CONTINUATION", nil, func(_ context.Context, address string) error {
		h, err := dialHostile(address)
		if err != nil {
			return err
		}
		defer h.Close()
		if err := h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h.Block(chatPath, grpcType)}); err != nil {
			return err
		}
		h.ForgetHeaders()
		for range 100_000 {
			if err := h.WriteContinuation(1, false, h.Block("/", grpcType, hpack.HeaderField{Name: "x", Value: strings.Repeat("~", 1000)})); err != nil {
				return nil // The server has closed the connection.
			}
		}
		return errors.New("the server accepts more than 100 MB of headers")
	}},
	{"sends large headers", nil, func(_ context.Context, address string) error {
		for range 20 {
			h, err := dialHostile(address)
			if err != nil {
				return err
			}
			// One large field in the HPACK dynamic table, and 3000 references of a byte each to it: 12 MB.
			bomb := h.Block(chatPath, grpcType, hpack.HeaderField{Name: "x", Value: strings.Repeat("x", 4000)})
			bomb = append(bomb, bytes.Repeat([]byte{0x80 | 62}, 3000)...)
			_ = h.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: bomb, EndHeaders: true})
			frame, err := h.ReadFrame()
			for err == nil {
				if headers, ok := frame.(*http2.HeadersFrame); ok && headers.StreamID == 1 {
					break // The server answers 431 or similar.
				}
				frame, err = h.ReadFrame()
			}
			_ = h.Close()
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
				return err
			}
		}
		return nil
	}},
	{"sends half a preface or frame", nil, func(_ context.Context, address string) error {
		for i := range 300 {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return err
			}
			defer conn.Close() // All connections stay open until the end.
			h, err := dialHostile(address)
			if err != nil {
				return err
			}
			defer h.Close()
			// 100 bytes of a frame of 16 KiB, or of nearly a megabyte.
			data := append([][]byte{{0, 0x40, 0, 0, 0, 0, 0, 0, 1}, {0xf, 0xff, 0xff, 0, 0, 0, 0, 0, 1}}[i%2], make([]byte, 100)...)
			_, err = conn.Write([]byte(http2.ClientPreface)[:i%len(http2.ClientPreface)])
			if err == nil {
				err = h.open(1, chatPath)
			}
			if err == nil {
				_, err = h.Write(data[:9+i%100])
			}
			if err != nil {
				return err
			}
		}
		time.Sleep(2 * time.Second)
		return nil
	}},
	{"sends gzip bombs", nil, func(_ context.Context, address string) error {
		var packed bytes.Buffer
		writer := gzip.NewWriter(&packed)
		zeros := make([]byte, 1<<20)
		for range 400 { // 400 MB compress to 400 kB, below the limit of a message.
			if _, err := writer.Write(zeros); err != nil {
				return err
			}
		}
		if err := writer.Close(); err != nil {
			return err
		}
		bomb := envelope(1, packed.Bytes())
		for _, path := range []string{chatPath, leavePath, "/routeguide.RouteGuide/GetFeature"} {
			for range 20 {
				h, err := dialHostile(address)
				if err != nil {
					return err
				}
				err = h.open(1, path, hpack.HeaderField{Name: "grpc-encoding", Value: "gzip"})
				if err == nil {
					err = h.sendAndAwaitStatus(1, bomb, "8")
				}
				_ = h.Close()
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
		}
		return nil
	}},
	{"floods PING and SETTINGS", nil, func(_ context.Context, address string) error {
		for _, write := range []func(*hostile) error{
			func(h *hostile) error { return h.WritePing(false, [8]byte{}) },
			func(h *hostile) error { return h.WriteSettings() },
			func(h *hostile) error { return h.WriteData(1, false, nil) },
		} {
			h, err := dialHostile(address)
			if err != nil {
				return err
			}
			err = h.open(1, chatPath)
			for i := 0; i < 300_000 && err == nil; i++ {
				err = write(h)
			}
			_ = h.Close()
		}
		return nil
	}},
	{"opens 10,000 silent chats", nil, func(ctx context.Context, address string) error {
		return runLoad(ctx, address, "--mode", "idle", "--connections", "100", "--chats", "10000", "--note-bytes", "24", "--duration", "3s")
	}},
	{"replays a hot location", nil, func(ctx context.Context, address string) error {
		return runLoad(ctx, address, "--mode", "written-ahead", "--ahead", "100", "--connections", "4", "--chats", "100", "--locations", "1",
			"--note-bytes", "1000", "--duration", "3s", "--notes", "1500")
	}},
	{"does not read responses", []string{"--stall-timeout", "1s"}, func(_ context.Context, address string) error {
		h, err := dialHostile(address, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		if err != nil {
			return err
		}
		defer h.Close()
		world, err := proto.Marshal(&routeguide.Rectangle{Lo: &routeguide.Point{Latitude: -9e8, Longitude: -18e8}, Hi: &routeguide.Point{Latitude: 9e8, Longitude: 18e8}})
		if err != nil {
			return err
		}
		for i, call := range []struct {
			path, contentType string
			request           []byte
		}{
			{"/routeguide.RouteGuide/ListFeatures", grpcType, envelope(0, world)},
			{"/routeguide.RouteGuide/GetFeature", grpcType, envelope(0, nil)},
			{"/routeguide.RouteGuide/GetFeature", "application/proto", nil},
			{"/grpc.health.v1.Health/Watch", grpcType, envelope(0, nil)},
			{chatPath, "application/connect+proto", envelope(0, nil)}, // The note is invalid: the response is its error.
			{chatPath, "application/connect+json", envelope(0, []byte(`{"location":{}}`))},
		} {
			stream := uint32(2*i + 1)
			if err := errors.Join(h.Open(stream, call.path, call.contentType), h.WriteData(stream, true, call.request)); err != nil {
				return err
			}
			if err := h.awaitReset(stream); err != nil {
				return fmt.Errorf("%s as %s: %w", call.path, call.contentType, err)
			}
		}
		return nil
	}},
	{"sends half of long notes", nil, func(_ context.Context, address string) error {
		return sendHalves(address, chatPath)
	}},
	{"sends half of long LeaveNotes", nil, func(_ context.Context, address string) error {
		return sendHalves(address, leavePath)
	}},
	{"does not read long answers of LeaveNote", nil, func(_ context.Context, address string) error {
		note, err := proto.Marshal(&routeguidev1.LeaveNoteRequest{Location: &routeguide.Point{}, Text: strings.Repeat("x", 32<<10), Id: "one note in the store"})
		if err != nil {
			return err
		}
		var packed bytes.Buffer // 100 bytes
		writer := gzip.NewWriter(&packed)
		if _, err := writer.Write(note); err != nil {
			return err
		}
		if err := writer.Close(); err != nil {
			return err
		}
		return floodCalls(address, leavePath, grpcType, envelope(1, packed.Bytes()), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	}},
	{"watches health 40,000 times", nil, func(_ context.Context, address string) error {
		return floodCalls(address, "/grpc.health.v1.Health/Watch", grpcType, envelope(0, nil))
	}},
	{"sends noise", nil, func(_ context.Context, address string) error {
		random := rand.New(rand.NewPCG(1, 2))
		for range 300 {
			h, err := dialHostile(address)
			if err != nil {
				return err
			}
			_ = h.open(1, chatPath)
			for range 50 {
				payload := make([]byte, random.IntN(100))
				for i := range payload {
					payload[i] = byte(random.Uint32())
				}
				// The server closes the connection after a protocol error.
				_ = h.WriteRawFrame(http2.FrameType(random.IntN(11)), http2.Flags(random.Uint32()), uint32(random.IntN(4)), payload)
			}
			_ = h.Close()
		}
		return nil
	}},
}

// requestLargeReplies opens a chat with large windows and requests 13 MB of replies: it sends 50 long notes at one
// location, and each reply has all notes before.
func requestLargeReplies(address string) (*hostile, error) {
	h, err := dialHostile(address, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	if err != nil {
		return nil, err
	}
	err = errors.Join(h.WriteWindowUpdate(0, 1<<30), h.open(1, chatPath))
	for i := 0; i < 50 && err == nil; i++ {
		err = h.sendNote(1, 1, strings.Repeat("x", 10<<10))
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// sendHalves opens 1000 calls on 10 connections, and sends 480 of 500 KiB of a message on each.
func sendHalves(address, path string) error {
	for range 10 {
		h, err := dialHostile(address)
		if err != nil {
			return err
		}
		defer h.Close() // All connections stay open until the end.
		h.Discard()
		part := make([]byte, 16<<10)
		for stream := uint32(1); stream < 200; stream += 2 {
			err := errors.Join(h.open(stream, path), h.WriteData(stream, false, binary.BigEndian.AppendUint32([]byte{0}, 500<<10)))
			for range 30 { // 480 KiB
				err = errors.Join(err, h.WriteData(stream, false, part))
			}
			if err != nil {
				return nil // The server has closed the connection.
			}
		}
	}
	time.Sleep(time.Second)
	return nil
}

// floodCalls opens 40,000 calls on 40 connections, and keeps them open for a second.
func floodCalls(address, path, contentType string, request []byte, settings ...http2.Setting) error {
	gzipped := hpack.HeaderField{Name: "grpc-encoding", Value: "gzip"} // envelopes with the flag 1
	for range 40 {
		h, err := dialHostile(address, settings...)
		if err != nil {
			return err
		}
		defer h.Close()
		h.Discard()
		for stream := uint32(1); stream < 2000; stream += 2 {
			if err := errors.Join(h.Open(stream, path, contentType, gzipped), h.WriteData(stream, true, request)); err != nil {
				return err
			}
		}
	}
	time.Sleep(time.Second)
	return nil
}

// runLoad runs `client load`, and returns an error if a chat fails.
func runLoad(ctx context.Context, address string, args ...string) error {
	client, err := clientProgram()
	if err != nil {
		return err
	}
	_, err = process.Run(ctx, client, append([]string{"load", "--addr", "http://" + address}, args...)...)
	return err
}
