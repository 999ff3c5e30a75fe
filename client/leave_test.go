package main

import (
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/process"
)

// serverProgram and clientProgram are the paths of the commands.
var serverProgram, clientProgram string

func TestMain(m *testing.M) {
	os.Exit(withPrograms(m.Run))
}

func withPrograms(run func() int) int {
	folder, err := os.MkdirTemp("", "client")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	for pkg, program := range map[string]*string{"server": &serverProgram, "client": &clientProgram} {
		if *program, err = process.Build(".", "example.com/routeguide/"+pkg, folder); err != nil {
			log.Fatal(err)
		}
	}
	return run()
}

// startServer runs a server with a store in memory until the test ends, and returns its URL.
func startServer(t *testing.T, args ...string) (url string) {
	t.Helper()
	server, address, err := process.StartServer(serverProgram, append([]string{"--store", "memory:"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + address
}

func TestLeavePrintsPositionAndTime(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	const opera = "-33.8568,151.2153"
	for _, args := range [][]string{
		{"1", "--at", opera},
		{"2", "--at=" + opera},
		{"3", "--at", opera, "--protocol", "grpc"},
		{"4", "--at", opera, "--protocol", "grpcweb", "--codec", "json"},
	} {
		var out strings.Builder
		if err := run(t.Context(), append([]string{"leave", "--addr", url}, args...), &out, io.Discard); err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^Left at -33\.8568,151\.2153: position \d+, time 2\d{3}-\S+Z\n$`).MatchString(out.String()) {
			t.Errorf("%v: it prints %q", args, &out)
		}
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"leave", "--addr", url, "--at", opera, "--json", "last\n\"text\""}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var note struct {
		Location                      map[string]int32
		Text, Position, LeaveTime, ID string
	}
	if err := json.Unmarshal([]byte(out.String()), &note); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("it prints %q: %v", &out, err)
	}
	if note.Location["latitude"] != -338568000 || note.Location["longitude"] != 1512153000 || note.Text != "last\n\"text\"" ||
		note.Position == "" || note.LeaveTime == "" || note.ID == "" {
		t.Errorf("it prints %s", &out)
	}
	// Each of them is in the log.
	client, err := routechat.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	chat, err := client.RouteChat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	here := &routeguide.Point{Latitude: -338568000, Longitude: 1512153000}
	if err := errors.Join(chat.Send(&routeguide.RouteNote{Location: here}), chat.CloseRequest()); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for {
		reply, err := chat.Receive()
		if err != nil {
			break
		}
		texts = append(texts, reply.GetMessage())
	}
	if got := strings.Join(texts, "|"); got != "1|2|3|4|last\n\"text\"|" {
		t.Errorf("the log is %q", texts)
	}
}

// nobody returns the URL of a port at which nobody listens.
func nobody(t *testing.T) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return "http://" + listener.Addr().String()
}

func TestLeaveErrors(t *testing.T) {
	t.Parallel()
	url := startServer(t, "--max-text", "10")
	for _, test := range []struct {
		args  []string
		usage bool // exit code 2
		want  string
	}{
		{[]string{"text"}, true, "--at"},
		{[]string{"--at", "1,2"}, true, "<text>"},
		{[]string{"--at", "1,2", "two", "texts"}, true, "texts"},
		{[]string{"text", "--at"}, true, "--at: want latitude and longitude"},
		{[]string{"--at", "1", "text"}, true, "--at: want latitude and longitude"},
		{[]string{"--at", "90.1,0", "text"}, true, "latitude 90.1 is not between -90 and 90"},
		{[]string{"--at", "1,2", "--timeout", "0s", "text"}, true, "--timeout"},
		{[]string{"--at", "1,2", "--addr", "localhost:50051", "text"}, true, "--addr"},
		{[]string{"--at", "1,2", "--token", "a b", "text"}, true, "--token"},
		{[]string{"--at", "1,2", "--addr", url, "a longer text"}, false, "invalid_argument: text: is 13 bytes long"},
		{[]string{"--at", "1,2", "--addr", nobody(t), "--timeout", "100ms", "text"}, false, "deadline_exceeded"},
	} {
		err := run(t.Context(), append([]string{"leave"}, test.args...), io.Discard, io.Discard)
		_, usage := errors.AsType[*command.UsageError](err)
		if err == nil || usage != test.usage || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: got %v, want %q in one line, a usage error: %v", test.args, err, test.want, test.usage)
		}
	}
}

func TestPlaceInDegrees(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		place   place
		printed string
	}{
		"40.7127,-74.0059":          {place{407127000, -740059000}, "40.7127,-74.0059"},
		" -33.8568 , 151.2153 ":     {place{-338568000, 1512153000}, "-33.8568,151.2153"},
		"90,180":                    {place{900000000, 1800000000}, "90,180"},
		"-90,-180.0":                {place{-900000000, -1800000000}, "-90,-180"},
		"0.0000001,-0.00000005":     {place{1, -1}, "0.0000001,-0.0000001"},
		"89.99999994,-179.99999996": {place{899999999, -1800000000}, "89.9999999,-180"},
		"0,0":                       {place{}, "0,0"},
	} {
		var got place
		if err := got.parse(text); err != nil || got != want.place || got.String() != want.printed {
			t.Errorf("%q: got %d, %d, %v, %v, want %v", text, got.latitude, got.longitude, &got, err, want)
		}
	}
	for _, text := range []string{"", "1", ",", "1,", ",1", "1,2,3", "NaN,0", "0,Inf", "90.0000001,0", "0,-180.0000001", "1;2", "40°,74°"} {
		var got place
		if err := got.parse(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, &got)
		}
	}
}
