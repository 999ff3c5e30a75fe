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

// servePeer accepts one connection, grants large flow-control windows, and leaves the rest to talk, until the
// test ends.
func servePeer(t *testing.T, talk func(conn net.Conn, framer *http2.Framer, over <-chan struct{})) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var talking sync.WaitGroup
	over := make(chan struct{})
	t.Cleanup(func() {
		close(over)
		_ = listener.Close()
		talking.Wait()
	})
	talking.Go(func() {
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
		talk(conn, framer, over)
	})
	return "http://" + listener.Addr().String()
}

// chatWith opens a chat with a server, and returns a context that ends when the client should long have given up.
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

// A server that goes silent, as behind a cable that was cut, is found by PING, and the chat that waits for it ends.
func TestClientFindsASilentServerByPING(t *testing.T) {
	t.Parallel()
	pinged := make(chan struct{})
	url := servePeer(t, func(_ net.Conn, framer *http2.Framer, over <-chan struct{}) {
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
		<-over // The connection stays open.
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

// A server that takes nothing is given up, though it goes on to send.
func TestClientGivesUpAServerThatTakesNothing(t *testing.T) {
	t.Parallel()
	url := servePeer(t, func(_ net.Conn, framer *http2.Framer, over <-chan struct{}) {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				_ = framer.WritePing(false, [8]byte{}) // An error says that the client has given up.
			case <-over:
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
		t.Errorf("the client has not given up: %v", err)
	}
	_, _ = stream.CloseRequest(), stream.CloseResponse()
}
