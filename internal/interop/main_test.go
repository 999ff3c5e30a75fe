package interop

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"example.com/routeguide/internal/process"
)

// Paths of the programs under test: ours from the parent module, the others in the versions of go.mod.
var (
	ourServer, ourClient     string
	stockServer, stockClient string
	grpcurl, h2spec          string
	// The Connect conformance suite, and the server that it tests.
	conformanceRunner, conformanceServer string
)

func TestMain(m *testing.M) {
	code, err := withPrograms(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withPrograms(run func() int) (int, error) {
	folder, err := os.MkdirTemp("", "interop")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	for _, build := range []struct {
		program  *string
		dir, pkg string
	}{
		{&ourServer, "../..", "example.com/routeguide/server"},
		{&ourClient, "../..", "example.com/routeguide/client"},
		{&stockServer, ".", "google.golang.org/grpc/examples/route_guide/server"},
		{&stockClient, ".", "google.golang.org/grpc/examples/route_guide/client"},
		{&grpcurl, ".", "github.com/fullstorydev/grpcurl/cmd/grpcurl"},
		{&h2spec, ".", "github.com/summerwind/h2spec/cmd/h2spec"},
		{&conformanceRunner, ".", "connectrpc.com/conformance/cmd/connectconformance"},
		{&conformanceServer, "../../server/internal/conformance", "example.com/routeguide/server/internal/conformance"},
	} {
		if *build.program, err = process.Build(build.dir, build.pkg, folder); err != nil {
			return 0, fmt.Errorf("%w\n(`make tools` in the root of this repository generates code that is needed)", err)
		}
	}
	return run(), nil
}

// buf returns the path of buf, which the Makefile installs.
func buf(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../.bin/buf")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("buf is not installed: run `make tools` in the root of this repository: %v", err)
	}
	return path
}

// run runs a program to its end and returns its output.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	printed, err := process.Run(t.Context(), program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return printed
}

// startOurs runs our server until the test ends, and returns its address.
func startOurs(t *testing.T, args ...string) string {
	t.Helper()
	_, address := startOurProcess(t, args...)
	return address
}

// startOurProcess is startOurs for tests that read the server's log.
func startOurProcess(t *testing.T, args ...string) (*process.Process, string) {
	t.Helper()
	server, address, err := process.StartServer(ourServer, append([]string{"--store", "memory:"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server, address
}

// freeAddress returns a free address, for programs that do not support port 0.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return address
}

// startStock runs the stock server until the test ends, and returns its address. The server does not support port 0,
// and does not log when it listens.
func startStock(t *testing.T) string {
	t.Helper()
	address := freeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	server, err := process.Start(stockServer, "-port", port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	for {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			_ = connection.Close()
			return address
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// stockModule returns the folder of the stock contract in the module cache.
func stockModule(t *testing.T) string {
	t.Helper()
	folder, err := exec.Command("go", "list", "-f", "{{.Dir}}", "google.golang.org/grpc/examples/route_guide/routeguide").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(folder[:len(folder)-1])
}
