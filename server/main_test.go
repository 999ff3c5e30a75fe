package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/process"
	"example.com/routeguide/internal/rawhttp2"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if folder, err := programFolder(); err == nil {
			_ = os.RemoveAll(folder)
		}
		os.Exit(code)
	}))
}

// start runs the server with args in this process, and returns its URL. stop shuts it down and returns the error of
// run.
func start(t *testing.T, args ...string) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"--listen", "127.0.0.1:0", "--store", "memory:"}, args...), io.Discard, write)
		_ = write.CloseWithError(io.EOF)
		ended <- err
	}()
	log := bufio.NewScanner(read)
	for log.Scan() {
		if match := regexp.MustCompile(`"?listen"?[=:]"?(127.0.0.1:\d+)`).FindStringSubmatch(log.Text()); match != nil {
			url = "http://" + match[1]
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, read) }()
	if url == "" {
		cancel()
		t.Fatalf("the server ended before it was listening: %v", <-ended)
	}
	return url, func() error {
		cancel()
		return <-ended
	}
}

func TestRunServesUntilContextEnds(t *testing.T) {
	for _, args := range [][]string{nil, {"--log-format", "json"}, {"--log-level", "DEBUG"}} {
		url, stop := start(t, args...)
		client, err := routechat.New(url)
		if err != nil {
			t.Fatal(err)
		}
		feature, err := client.GetFeature(t.Context(), &routeguide.Point{Latitude: 409146138, Longitude: -746188906})
		if err != nil || feature.GetName() == "" {
			t.Errorf("got %v, %v", feature, err)
		}
		client.Close()
		if err := stop(); err != nil {
			t.Errorf("%v: the server ended with %v", args, err)
		}
	}
}

// Compose files set variables without a value to the empty string.
func TestRunIgnoresEmptyEnvironmentVariables(t *testing.T) {
	for _, command := range [][]string{nil, {"notes", "export"}, {"notes", "import"}, {"notes", "stats"}} {
		var help strings.Builder
		if err := run(t.Context(), append(command, "--help"), &help, io.Discard); !strings.Contains(help.String(), "ROUTEGUIDE_STORE") {
			t.Fatalf("got %v", err)
		}
		for _, name := range regexp.MustCompile("ROUTEGUIDE_[A-Z0-9_]+").FindAllString(help.String(), -1) {
			t.Setenv(name, "")
		}
	}
	_, stop := start(t)
	if err := stop(); err != nil {
		t.Error(err)
	}
	store := "pebble:" + t.TempDir()
	for _, command := range []string{"import", "export", "stats"} {
		args := []string{"notes", command, "--store", store}
		if command == "import" {
			args = append(args, "--from", os.DevNull)
		}
		if err := run(t.Context(), args, io.Discard, io.Discard); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestFeaturesFlagFromEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "features.json")
	if err := os.WriteFile(file, []byte(`[{"location": {"latitude": 1, "longitude": 2}, "name": "here"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ROUTEGUIDE_FEATURES", file)
	url, stop := start(t)
	client, err := routechat.New(url)
	if err != nil {
		t.Fatal(err)
	}
	if feature, err := client.GetFeature(t.Context(), &routeguide.Point{Latitude: 1, Longitude: 2}); err != nil || feature.GetName() != "here" {
		t.Errorf("got %v, %v", feature, err)
	}
	client.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Only net/http sends SETTINGS_MAX_FRAME_SIZE.
func TestHTTP2FlagChoosesServer(t *testing.T) {
	for server, want := range map[string]bool{"native": false, "net/http": true} {
		checkHTTP2(t, server, want, "--http2", server)
		t.Setenv("ROUTEGUIDE_HTTP2", server)
		checkHTTP2(t, server, want)
	}
}

// checkHTTP2 fails the test unless a server with these flags is net/http's, or is not.
func checkHTTP2(t *testing.T, server string, want bool, flags ...string) {
	t.Helper()
	url, stop := start(t, flags...)
	conn, err := rawhttp2.Dial(strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	frame, err := conn.ReadFrame()
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("%s: the first frame is %v, %v", server, frame, err)
	}
	if _, sent := settings.Value(http2.SettingMaxFrameSize); sent != want {
		t.Errorf("%s: another server has sent %v", server, settings)
	}
	if err := errors.Join(conn.Close(), stop()); err != nil {
		t.Error(err)
	}
}

func TestInvalidFlagsAreUsageErrorsInOneLine(t *testing.T) {
	for _, args := range [][]string{
		{"--bogus"},
		{"surplus"},
		{"--listen", "50051"},
		{"--listen", "localhost:http:1"},
		{"--listen", "localhost:99999"},
		{"--listen", "localhost:bogus"},
		{"--store", "paper:"},
		{"--store", "memory:somewhere"},
		{"--log-format", "xml"},
		{"--log-level", "loud"},
		{"--client-share", "0"},
		{"--client-share", "101"},
		{"--client-share", "NaN"},
		{"--max-calls", "-1"},
		{"--http2", "quick"},
	} {
		err := run(t.Context(), args, io.Discard, io.Discard)
		var usage *command.UsageError
		if !errors.As(err, &usage) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: got %v, want a usage error of one line", args, err)
		}
	}
}

func TestHelpIsPrintedToStdout(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"--help"}, &out, io.Discard); !errors.Is(err, command.ErrHelp) {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"--listen", "ROUTEGUIDE_STORE", "grpcurl"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help does not contain %s:\n%s", want, out.String())
		}
	}
}

func TestRunStartupErrorsNameCause(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte(`[{"name": "nowhere"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--listen", listener.Addr().String()}, "address already in use"},
		{[]string{"--features", bad}, "bad.json: entry 1 (line 1): location is missing"},
		{[]string{"--features", bad + "x"}, "no such file"},
	} {
		err := run(t.Context(), append([]string{"--store", "memory:"}, test.args...), io.Discard, io.Discard)
		var usage *command.UsageError
		if err == nil || errors.As(err, &usage) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: got %v, want an error with %q", test.args, err, test.want)
		}
	}
}

// Old names of flags still work, with one warning each.
func TestRenamedFlagsWorkAndWarn(t *testing.T) {
	t.Setenv("ROUTEGUIDE_KEEP", "720h")
	server, _, err := process.StartServer(must(program()), "--notes", "memory:", "--drain", "1s", "--drain-delay=1ms", "--chat-life", "1h",
		"--max-header", "64KiB", "--max-streams", "10", "--max-arriving", "1MiB", "--max-unread", "1MiB", "--max-pending-in-all", "1000", "--redis-replicas", "0")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
	log := server.Printed()
	for _, want := range []string{
		"--notes is called --store now", "--drain is called --shutdown-timeout now", "--drain-delay is called --shutdown-delay now",
		"--chat-life is called --max-chat-age now", "ROUTEGUIDE_KEEP is called ROUTEGUIDE_RETENTION now",
	} {
		if strings.Count(log, want) != 1 {
			t.Errorf("%q is in the log %d times, want once:\n%s", want, strings.Count(log, want), log)
		}
	}
	if count := strings.Count(log, "level=WARN"); count != 5 {
		t.Errorf("%d warnings, want 5:\n%s", count, log)
	}
}

func TestVersionIsPrintedAndLogged(t *testing.T) {
	t.Setenv("ROUTEGUIDE_VERSION", "1") // --version has no environment variable.
	var out strings.Builder
	if err := run(t.Context(), []string{"--version"}, &out, io.Discard); !errors.Is(err, command.ErrHelp) || !strings.Contains(out.String(), runtime.Version()) {
		t.Errorf("got %q, %v, want the version of Go", &out, err)
	}
	server, _, err := process.StartServer(must(program()), "--store", "memory:", "--admin", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	if metrics := get(t, "http://"+admin[1]+"/metrics"); !strings.Contains(metrics, `routeguide_build_info{goversion="`+runtime.Version()+`",`) {
		t.Error("no routeguide_build_info in the metrics")
	}
	if err := server.Stop(); err != nil || !strings.Contains(server.Printed(), runtime.Version()) {
		t.Errorf("got %v, want the version of Go in the log", err)
	}
}
