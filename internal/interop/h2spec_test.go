package interop

import (
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// knownFailures are the failing tests of h2spec, with the reasons. All are due to net/http, and fail without package
// wire, too. The last three are flaky.
var knownFailures = map[string]string{
	"Sends invalid connection preface":                                                                                                     "net/http treats it as HTTP/1.1, and answers 400 before it closes the connection",
	"Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE":                                                            "net/http accepts frames of up to 1 MiB and announces that in SETTINGS; h2spec's frame is shorter",
	"Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                                                                "net/http closes connections with duplicate SETTINGS, as protection against floods",
	"Sends a HEADERS frame that contains the connection-specific header field":                                                             "net/http ignores the header",
	`Sends a HEADERS frame that contains the TE header field with any value other than "trailers"`:                                         "as above",
	"Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream":                                   "the response is short, and the stream may have ended before the second frame",
	`Sends a HEADERS frame with the "content-length" header field which does not equal the DATA frame payload length`:                      "as above: / answers 404 without waiting for DATA",
	`Sends a HEADERS frame with the "content-length" header field which does not equal the sum of the multiple DATA frames payload length`: "as above",
}

// minPassed is the minimum of passed tests, of h2spec's 145: the number with net/http alone.
const minPassed = 138

// maxAttempts is the number of runs of h2spec before the test fails. Some tests race with the response, which ends the
// stream that they still use.
const maxAttempts = 5

func TestH2spec(t *testing.T) { //nolint:paralleltest // h2spec has timeouts of a few seconds.
	host, port, err := net.SplitHostPort(startOurs(t))
	if err != nil {
		t.Fatal(err)
	}
	for attempt := range maxAttempts {
		// The exit code is not 0 if a test failed.
		printed, err := exec.CommandContext(t.Context(), h2spec, "-h", host, "-p", port, "-o", "5").CombinedOutput()
		if _, failed := err.(*exec.ExitError); err != nil && !failed { //nolint:errorlint // exec returns it unwrapped.
			t.Fatal(err)
		}
		summary := regexp.MustCompile(`145 tests, (\d+) passed, 0 skipped, (\d+) failed`).FindSubmatch(printed)
		if summary == nil {
			t.Fatalf("h2spec has not run all tests:\n%s", printed)
		}
		t.Logf("h2spec: %s", summary[0])
		_, list, _ := strings.Cut(string(printed), "Failures:")
		failures := regexp.MustCompile(`× \d+: (.*)`).FindAllStringSubmatch(list, -1)
		unknown := slices.DeleteFunc(slices.Clone(failures), func(failure []string) bool {
			return knownFailures[strings.TrimSpace(failure[1])] != ""
		})
		if len(failures) <= 145-minPassed && len(unknown) == 0 {
			return
		}
		if attempt == maxAttempts-1 {
			t.Errorf("%d of 145 tests fail; without a known reason: %q", len(failures), unknown)
		}
	}
}
