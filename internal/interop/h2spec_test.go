package interop

import (
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// explained are the tests of h2spec that fail, each with the reason. All of them are net/http's, and fail without
// what this module puts below it too. The last one does so now and then.
var explained = map[string]string{
	"Sends invalid connection preface":                                                                   "it is taken for HTTP/1.1, and gets a 400 before the connection is closed",
	"Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE":                          "net/http takes frames of up to 1 MiB, says so in its SETTINGS, and h2spec's frame is shorter",
	"Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                              "net/http closes connections whose SETTINGS have a value twice, against floods of them",
	"Sends a HEADERS frame that contains the connection-specific header field":                           "net/http passes such a header over",
	`Sends a HEADERS frame that contains the TE header field with any value other than "trailers"`:       "as above",
	"Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream": "the answer is short, and the stream has ended when the second one comes, if the machine is busy",
}

// leastPassed is how many of h2spec's 145 tests must pass: as many as with net/http alone.
const leastPassed = 138

func TestHTTP2AsItIsSpecified(t *testing.T) { //nolint:paralleltest // h2spec waits for a second at most.
	host, port, err := net.SplitHostPort(startOurs(t))
	if err != nil {
		t.Fatal(err)
	}
	// Its exit code says whether a test has failed.
	printed, err := exec.CommandContext(t.Context(), h2spec, "-h", host, "-p", port, "-o", "5").CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed { //nolint:errorlint // It is what exec returns.
		t.Fatal(err)
	}
	summary := regexp.MustCompile(`145 tests, (\d+) passed, 0 skipped, (\d+) failed`).FindSubmatch(printed)
	if summary == nil {
		t.Fatalf("h2spec has not run all tests:\n%s", printed)
	}
	t.Logf("h2spec: %s", summary[0])
	failures := 0
	_, list, _ := strings.Cut(string(printed), "Failures:")
	for _, failure := range regexp.MustCompile(`× \d+: (.*)`).FindAllStringSubmatch(list, -1) {
		failures++
		if name := strings.TrimSpace(failure[1]); explained[name] == "" {
			t.Errorf("h2spec fails, and nobody has said why: %s", name)
		}
	}
	if failures > 145-leastPassed {
		t.Errorf("%d of 145 tests fail:\n%s", failures, list)
	}
}
