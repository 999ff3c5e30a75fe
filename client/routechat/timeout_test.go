package routechat_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
)

// servePeer accepts one connection and grants large flow-control windows. Then it runs handle, which must return once
// testDone is closed.
func servePeer(t *testing.T, handle func(conn net.Conn, framer *http2.Framer, testDone <-chan struct{})) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var peer sync.WaitGroup
	testDone := make(chan struct{})
	t.Cleanup(func() {
		close(testDone)
		_ = listener.Close()
		peer.Wait()
	})
	peer.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
			t.Error(err)
		}
		framer := http2.NewFramer(conn, conn)
		const window = 1 << 30
		if err := framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
			t.Error(err)
		}
		if err := framer.WriteWindowUpdate(0, window); err != nil {
			t.Error(err)
		}
		handle(conn, framer, testDone)
	})
	return "http://" + listener.Addr().String()
}

// chatWith opens a chat, with a context whose timeout is far beyond those of the client's health checks.
func chatWith(t *testing.T, url string) (context.Context, *connect.BidiStreamForClientSimple[routeguide.RouteNote, routeguide.RouteNote]) {
	t.Helper()
	client, err := routechat.New(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	stream, err := client.RouteChat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, stream
}

// PINGs find a server that does not answer, as after a network failure, and its chats end.
func TestPingEndsChatOfSilentServer(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	pinged := make(chan struct{})
	url := servePeer(t, func(_ net.Conn, framer *http2.Framer, testDone <-chan struct{}) {
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				break
			}
			if _, ok := frame.(*http2.PingFrame); ok {
				close(pinged)
				break
			}
		}
		<-testDone // The connection stays open.
	})
	ctx, stream := chatWith(t, url)
	if err := stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeUnavailable || ctx.Err() != nil {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
	select {
	case <-pinged:
	default:
		t.Error("the server was sent no PING")
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}

// The write timeout closes a connection to a server that does not read, even if it still sends.
func TestWriteTimeoutEndsChatOfServerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes seconds: go test without -short runs it")
	}
	url := servePeer(t, func(_ net.Conn, framer *http2.Framer, testDone <-chan struct{}) {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				_ = framer.WritePing(false, [8]byte{}) // It fails once the client has closed the connection.
			case <-testDone:
				return
			}
		}
	})
	ctx, stream := chatWith(t, url)
	var err error
	for long := strings.Repeat("x", 64<<10); err == nil; {
		err = stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{}, Message: long})
	}
	if ctx.Err() != nil {
		t.Errorf("the client has not closed the connection: %v", err)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}
