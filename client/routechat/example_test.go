package routechat_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"testing"
	"time"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/process"
)

// url is the URL of the server that the tests run, and program the path of its program.
var url, program string

func TestMain(m *testing.M) {
	os.Exit(withServer(m.Run))
}

func withServer(run func() int) int {
	folder, err := os.MkdirTemp("", "routechat")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	program, err = process.Build(".", "example.com/routeguide/server", folder)
	if err != nil {
		log.Fatal(err)
	}
	server, address, err := process.StartServer(program, "--store", "memory:")
	if err != nil {
		log.Fatal(err)
	}
	url = "http://" + address
	code := run()
	if err := server.Stop(); err != nil {
		log.Fatal(err)
	}
	return code
}

func Example() {
	// url is the URL of the server, such as http://localhost:50051.
	client, err := routechat.New(url)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	chat, err := client.RouteChat(ctx)
	if err != nil {
		log.Fatal(err)
	}
	here := &routeguide.Point{Latitude: 407127000, Longitude: -740059000}
	for _, message := range []string{"Anyone here?", "I am."} {
		if err := chat.Send(&routeguide.RouteNote{Location: here, Message: message}); err != nil {
			log.Fatal(err)
		}
	}
	if err := chat.CloseRequest(); err != nil {
		log.Fatal(err)
	}
	for {
		note, err := chat.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(note.GetMessage())
	}
	// Output:
	// Anyone here?
	// Anyone here?
	// I am.
}

func TestNewRefusesInvalidURL(t *testing.T) {
	for _, url := range []string{"", "localhost:50051", "ftp://localhost", "http://", "://"} {
		if client, err := routechat.New(url); err == nil {
			client.Close()
			t.Errorf("New(%q) gives a client, want an error", url)
		}
	}
}
