package interop

import (
	"os/exec"
	"strings"
	"testing"
)

// curl returns the path of the system's curl.
func curl(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Fatalf("curl is not installed: run `make tools`, or install it with your system's packages: %v", err)
	}
	return path
}

func TestCurlGetFeatureByPostAndGet(t *testing.T) {
	t.Parallel()
	url := "http://" + startOurs(t) + "/routeguide.RouteGuide/GetFeature"
	for name, args := range map[string][]string{
		"POST":             {"-d", `{"latitude": 409146138, "longitude": -746188906}`, "-H", "Content-Type: application/json", url},
		"POST over HTTP/2": {"--http2-prior-knowledge", "-d", `{"latitude": 409146138, "longitude": -746188906}`, "-H", "Content-Type: application/json", url},
		"GET":              {"--get", "--data-urlencode", "encoding=json", "--data-urlencode", `message={"latitude": 409146138, "longitude": -746188906}`, url},
		"GET over HTTP/2":  {"--http2-prior-knowledge", "--get", "--data-urlencode", "encoding=json", "--data-urlencode", `message={"latitude": 409146138, "longitude": -746188906}`, url},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if feature := run(t, curl(t), append([]string{"-sS", "--fail"}, args...)...); !strings.Contains(feature, "Berkshire Valley") {
				t.Errorf("curl gets %s", feature)
			}
		})
	}
}

func TestCurlRouteChatOverHTTP1Gets505(t *testing.T) {
	t.Parallel()
	printed := run(t, curl(t), "-sS", "-i", "-d", `{}`, "-H", "Content-Type: application/json",
		"http://"+startOurs(t)+"/routeguide.RouteGuide/RouteChat")
	for _, want := range []string{"505", "needs HTTP/2", "--http2-prior-knowledge"} {
		if !strings.Contains(printed, want) {
			t.Errorf("curl gets\n%s\nwant %s", printed, want)
		}
	}
}
