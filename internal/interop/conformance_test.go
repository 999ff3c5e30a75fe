package interop

import (
	"regexp"
	"testing"

	"example.com/routeguide/internal/process"
)

// conformanceCases is the number of cases of the Connect conformance suite for a server like ours, without HTTP/3.
const conformanceCases = "10756"

// unreadExplanations are cases of the suite that may fail, depending on how soon the client stops to read. A request that belongs to
// no RPC gets an error status, and our server adds an explanation. The suite then looks at what its client has read of the body or
// the trailers, but its client has stopped at the headers: it has the code from the status, which is as the suite wants it.
var unreadExplanations = []string{
	"Unexpected Requests/*/Protocol:PROTOCOL_GRPC/*/unexpected-content-type",
	"Unexpected Requests/*/Protocol:PROTOCOL_GRPC_WEB/*/unexpected-content-type",
	"gRPC Unexpected Requests/*/*/unexpected-codec",
	"gRPC Unexpected Requests/*/*/unexpected-verb",
	"gRPC-Web Unexpected Requests/*/*/unexpected-verb",
}

// unreadExplanation matches all that the suite may say about a case of unreadExplanations.
var unreadExplanation = regexp.MustCompile(`INFO: .* failed \(as expected\):\n\t(connect error JSON: unexpected end of JSON input|trailers did not include 'grpc-status' key)\n`)

// The suite calls a service that is mounted beside RouteGuide, below the same middleware.
func TestConnectConformance(t *testing.T) { //nolint:paralleltest // Some cases have timeouts of 200 ms.
	for _, http2 := range []string{"native", "net/http"} {
		t.Run(http2, func(t *testing.T) {
			args := []string{"--mode", "server", "--conf", "testdata/conformance.yaml"}
			for _, pattern := range unreadExplanations {
				args = append(args, "--known-flaky", pattern)
			}
			printed, err := process.Run(t.Context(), conformanceRunner, append(args, "--", conformanceServer, "--http2", http2)...)
			if err != nil {
				t.Fatal(err) // It has the output.
			}
			if !regexp.MustCompile(`Total cases: ` + conformanceCases + `\n\d+ passed, 0 failed\n`).MatchString(printed) {
				t.Errorf("not all cases were run and passed:\n%s", printed)
			}
			if rest := unreadExplanation.ReplaceAllString(printed, ""); regexp.MustCompile(`INFO|could not be run`).MatchString(rest) {
				t.Errorf("cases failed in other ways than expected:\n%s", rest)
			}
		})
	}
}
