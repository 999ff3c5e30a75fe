package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/routeguide/internal/process"
)

func TestBufCurlInEachProtocol(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"connect", "grpc", "grpcweb"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			server := "http://" + startOurs(t)
			url := server + "/routeguide.RouteGuide/"
			feature := run(t, buf(t), "curl", "--protocol", protocol, "--http2-prior-knowledge",
				"-d", `{"latitude": 409146138, "longitude": -746188906}`, url+"GetFeature")
			if !strings.Contains(feature, "Berkshire Valley") {
				t.Errorf("GetFeature gives %s", feature)
			}
			chat := run(t, buf(t), "curl", "--protocol", protocol, "--http2-prior-knowledge",
				"-d", `{"location": {"longitude": 1}, "message": "one"} {"location": {"longitude": 1}, "message": "two"}`, url+"RouteChat")
			if strings.Count(chat, `"one"`) != 2 || strings.Count(chat, `"two"`) != 1 {
				t.Errorf("RouteChat gives %s", chat)
			}
			left := run(t, buf(t), "curl", "--protocol", protocol, "--http2-prior-knowledge", "-d", noteToLeave, server+leaveNote)
			if !strings.Contains(left, `"position": "3"`) {
				t.Errorf("LeaveNote gives %s", left)
			}
		})
	}
}

// breakingConfig has one exception: our contract adds that GetFeature has no side effects, which is compatible.
const breakingConfig = `{"version": "v2", "breaking": {"use": ["WIRE_JSON"], "except": ["RPC_SAME_IDEMPOTENCY_LEVEL"]}}`

// Our contract is compatible with the stock contract, on the wire and in JSON.
func TestBufBreakingAgainstStockContract(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "stock.binpb")
	run(t, buf(t), "build", stockModule(t), "-o", image)
	run(t, buf(t), "breaking", "../../proto", "--config", breakingConfig, "--against", image)
}

// The configuration of TestBufBreakingAgainstStockContract does find a breaking change.
func TestBufBreakingFindsChange(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	image := filepath.Join(folder, "stock.binpb")
	run(t, buf(t), "build", stockModule(t), "-o", image)
	contract, err := os.ReadFile("../../proto/routeguide/route_guide.proto")
	if err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(string(contract), "string message = 2;", "string text = 3;", 1)
	if err := os.WriteFile(filepath.Join(folder, "route_guide.proto"), []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	printed, err := process.Run(t.Context(), buf(t), "breaking", folder, "--config", breakingConfig, "--against", image)
	if err == nil || !strings.Contains(printed, "message") {
		t.Errorf("buf finds no breaking change: %s", printed)
	}
}
