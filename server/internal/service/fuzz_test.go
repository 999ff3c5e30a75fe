package service_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide/routeguideconnect"
	"example.com/routeguide/server/internal/notes/memorystore"
)

// FuzzConnection sends arbitrary bytes on a connection. The server must still serve other connections.
func FuzzConnection(f *testing.F) {
	var chat bytes.Buffer
	framer := http2.NewFramer(&chat, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", routeguideconnect.RouteGuideRouteChatProcedure}, {":authority", "x"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(
		framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
		framer.WriteData(1, false, envelope([]byte{0x0a, 0})),
		framer.WritePing(false, [8]byte{1}),
		framer.WriteWindowUpdate(1, 5),
		framer.WriteData(1, true, envelope([]byte{0x0a, 2, 8, 1})),
	); err != nil {
		f.Fatal(err)
	}
	f.Add(true, chat.Bytes())
	f.Add(false, []byte("POST "+routeguideconnect.RouteGuideGetFeatureProcedure+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add(true, []byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
	url, _ := startFor(f, memorystore.New())
	client, err := routechat.New(url)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(client.Close)
	f.Fuzz(func(t *testing.T, preface bool, sent []byte) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if preface {
			_, _ = io.WriteString(conn, http2.ClientPreface) // The server may close the connection first.
		}
		_, _ = conn.Write(sent)
		if half, ok := conn.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
		_, _ = io.Copy(io.Discard, conn)
		if _, err := client.GetFeature(t.Context(), point(1, 1)); err != nil {
			t.Errorf("the server does not answer: %v", err)
		}
	})
}
