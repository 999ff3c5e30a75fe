package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/process"
)

// following runs "client follow" until stop is called, which returns its error.
func following(t *testing.T, args ...string) (stdout, stderr *bufio.Scanner, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, outWriter := io.Pipe()
	errs, errWriter := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"follow"}, args...), outWriter, errWriter)
		_ = errors.Join(outWriter.Close(), errWriter.Close())
		ended <- err
	}()
	stop = func() error {
		cancel()
		return <-ended
	}
	return bufio.NewScanner(out), bufio.NewScanner(errs), stop
}

// next returns the next line.
func next(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("there is no other line: %v", lines.Err())
	}
	return lines.Text()
}

func TestFollowPrintsNotes(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	leave := func(at, text string) {
		t.Helper()
		if err := run(t.Context(), []string{"leave", "--addr", url, "--at", at, text}, io.Discard, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	const opera, bridge = "-33.8568,151.2153", "-33.8523,151.2108"
	leave(opera, "1")
	leave(opera, "2")
	leave(bridge, "far away")
	for _, test := range []struct {
		args []string
		want []string // after the time
	}{
		{[]string{"--at", opera}, []string{opera + " 1", opera + " 2"}},
		{[]string{"--at", opera, "--newest", "1", "--protocol", "grpc"}, []string{opera + " 2"}},
		{[]string{"--at", opera, "--newest", "0", "--codec", "json"}, nil},
		{[]string{"--within", "-33.8,151.22,-33.9,151.212", "--protocol", "grpcweb"}, []string{opera + " 2"}},
		{[]string{"--at", opera, "--newest", "1", "--json"}, []string{`{"location":{"latitude":-338568000,"longitude":1512153000},"text":"2","position":"`}},
	} {
		stdout, _, stop := following(t, append(test.args, "--addr", url)...)
		for _, want := range test.want {
			got := next(t, stdout)
			if !strings.HasPrefix(want, "{") {
				want = `^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ` + regexp.QuoteMeta(want) + `$`
			} else {
				want = "^" + regexp.QuoteMeta(want)
			}
			if !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("%v: it prints %q, want %q", test.args, got, want)
			}
		}
		if err := stop(); err != nil { // As by Ctrl-C.
			t.Errorf("%v: %v", test.args, err)
		}
	}
	// A note that is left later, and that would take over the terminal.
	stdout, _, stop := following(t, "--addr", url, "--at", opera, "--newest", "1")
	_ = next(t, stdout)
	leave(opera, "\x1b[2J\nlater")
	if got := next(t, stdout); !strings.HasSuffix(got, opera+` "\x1b[2J\nlater"`) {
		t.Errorf("it prints %q", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestFollowSaysWhenItReconnects(t *testing.T) {
	t.Parallel()
	store := "pebble:" + t.TempDir()
	server, address, err := process.StartServer(serverProgram, "--store", store)
	if err != nil {
		t.Fatal(err)
	}
	client, err := routechat.New("http://" + address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	leave := func(text string) {
		t.Helper()
		if _, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: &routeguide.Point{}, Message: text}); err != nil {
			t.Fatal(err)
		}
	}
	leave("before")
	stdout, stderr, stop := following(t, "--addr", "http://"+address, "--at", "0,0")
	if got := next(t, stdout); !strings.HasSuffix(got, " 0,0 before") {
		t.Errorf("it prints %q", got)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for refused := false; !refused; {
		got := next(t, stderr)
		if !strings.HasPrefix(got, "client: not connected, trying again: ") {
			t.Errorf("it says %q", got)
		}
		refused = strings.Contains(got, "connection refused")
	}
	server, _, err = process.StartServer(serverProgram, "--listen", address, "--store", store)
	if err != nil {
		t.Fatal(err)
	}
	leave("after")
	if got := next(t, stdout); !strings.HasSuffix(got, " 0,0 after") { // Not "before".
		t.Errorf("it prints %q", got)
	}
	if got := next(t, stderr); got != "client: connected again" {
		t.Errorf("it says %q", got)
	}
	if err := errors.Join(stop(), server.Stop()); err != nil {
		t.Error(err)
	}
}

func TestFollowErrors(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	for _, test := range []struct {
		args  []string
		usage bool // exit code 2
		want  string
	}{
		{nil, true, "--at or --within is missing"},
		{[]string{"--at", "1,2", "--within", "1,2,3,4"}, true, "--at and --within"},
		{[]string{"--within", "1,2,3"}, true, "--within: want two opposite corners"},
		{[]string{"--within", "1,2,3,x"}, true, "--within: want two opposite corners"},
		{[]string{"--within", "1,2,3,200"}, true, "--within: longitude 200 is not between"},
		{[]string{"--at", "1,2", "--newest", "many"}, true, "--newest"},
		{[]string{"--at", "1,2", "--newest", "1001"}, true, "--newest 1001: want a number from 0 to 1000"},
		{[]string{"--at", "1,2", "--addr", "localhost:50051"}, true, "--addr"},
	} {
		err := run(t.Context(), append([]string{"follow", "--addr", url}, test.args...), io.Discard, io.Discard)
		_, usage := errors.AsType[*command.UsageError](err)
		if err == nil || usage != test.usage || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: got %v, want %q in one line, a usage error: %v", test.args, err, test.want, test.usage)
		}
	}
}

func TestFollowAndChatNeedToken(t *testing.T) {
	t.Parallel()
	const token = "0123456789abcdef"
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	url := startServer(t, "--tokens", tokens)
	err := run(t.Context(), []string{"follow", "--addr", url, "--at", "1,2"}, io.Discard, io.Discard)
	if connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("got %v, want UNAUTHENTICATED", err)
	}
	chat := start(t, "chat", "--addr", url, "--at", "1,2")
	await(t, chat, `client: unauthenticated: .*`)
	exits(t, chat, 1)
	args := []string{"--addr", url, "--at", "1,2", "--token", token}
	if err := run(t.Context(), append([]string{"leave", "hello"}, args...), io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	stdout, _, stop := following(t, args...)
	if got := next(t, stdout); !strings.HasSuffix(got, " 1,2 hello") {
		t.Errorf("it prints %q", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestConnectionReportsErrorOnce(t *testing.T) {
	t.Parallel()
	var said []string
	connection := connection{report: func(text string) { said = append(said, text) }}
	refused, cut := errors.New("refused"), errors.New("cut\n")
	for _, event := range []routechat.Event{
		{Current: true}, {Lost: cut}, {Lost: refused}, {Lost: refused}, {Cursor: []byte{1}}, {Current: true}, {Lost: refused}, {Reset: true, Current: true},
	} {
		connection.observe(event)
	}
	want := []string{
		`not connected, trying again: "cut\n"`, "not connected, trying again: refused", "connected again", "not connected, trying again: refused",
		"the server cannot continue where it was: the newest notes come again, and others may be missing", "connected again",
	}
	if !slices.Equal(said, want) {
		t.Errorf("it says %q, want %q", said, want)
	}
}
