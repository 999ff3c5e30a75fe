package interop

import (
	"crypto/tls"
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/server/h2"
)

// h2specTests is the number of tests of h2spec, the strict ones included.
const h2specTests = 146

// The handler answers at the end of the request: h2spec sends what a server must refuse while the request is in flight. The RouteGuide
// server would answer at once, because h2spec's requests are of no RPC, and the answer might come first.
func TestH2spec(t *testing.T) {
	t.Parallel()
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			handler := func(response http.ResponseWriter, request *http.Request) {
				if _, err := io.Copy(io.Discard, request.Body); err == nil {
					_, _ = io.WriteString(response, "answer")
				}
			}
			server := &h2.Server{Handler: http.HandlerFunc(handler)}
			report := filepath.Join(t.TempDir(), "report.xml")
			args := []string{"--strict", "--timeout", "3", "--junit-report", report}
			if scheme == "https" {
				certificate, err := tls.LoadX509KeyPair(certtest.SelfSigned(t))
				if err != nil {
					t.Fatal(err)
				}
				server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"}}
				args = append(args, "--tls", "--insecure")
			}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- server.Serve(listener) }()
			defer func() {
				if err := server.Close(); err != nil {
					t.Error(err)
				}
				<-served
			}()
			host, port, err := net.SplitHostPort(listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			// The exit code is not 0 if a test fails. The report says which.
			printed, _ := exec.CommandContext(t.Context(), h2spec, append(args, "--host", host, "--port", port)...).CombinedOutput()
			checkH2spec(t, report, string(printed))
		})
	}
}

// checkH2spec fails the test unless h2spec's report, in the format of JUnit, has all tests, and none that failed.
func checkH2spec(t *testing.T, path, printed string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; h2spec printed:\n%s", err, printed)
	}
	var report struct {
		Tests []struct {
			Section string  `xml:"package,attr"`
			Name    string  `xml:"classname,attr"`
			Skipped *string `xml:"skipped"`
			Failure *string `xml:"failure"`
			Error   *string `xml:"error"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(content, &report); err != nil {
		t.Fatalf("%v:\n%s", err, content)
	}
	if len(report.Tests) != h2specTests {
		t.Errorf("h2spec ran %d tests, want %d; it printed:\n%s", len(report.Tests), h2specTests, printed)
	}
	for _, test := range report.Tests {
		for _, bad := range []*string{test.Skipped, test.Failure, test.Error} {
			if bad != nil {
				t.Errorf("%s: %s: %s", test.Section, test.Name, *bad)
			}
		}
	}
}
