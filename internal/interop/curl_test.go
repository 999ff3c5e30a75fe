package interop

import (
	"strings"
	"testing"
)

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
			if feature := run(t, installed(t, "curl"), append([]string{"-sS", "--fail"}, args...)...); !strings.Contains(feature, "Berkshire Valley") {
				t.Errorf("curl gets %s", feature)
			}
		})
	}
}

// A repetition has the same output: position and time are those of the first note.
func TestCurlLeaveNoteAgain(t *testing.T) {
	t.Parallel()
	inClearAndTLS(t, func(t *testing.T, url, certificate string) {
		args := []string{"-sS", "--fail", "-H", "Content-Type: application/json", "-d", noteToLeave, url + leaveNote}
		if certificate != "" {
			args = append(args, "--cacert", certificate)
		}
		var first string
		for i, version := range []string{"--http1.1", "--http1.1", "--http2-prior-knowledge"} {
			if certificate != "" && i == 2 {
				version = "--http2"
			}
			left := run(t, installed(t, "curl"), append(args, version)...)
			if first == "" {
				first = left
			}
			if left != first || !strings.Contains(left, `"position":"`) {
				t.Errorf("curl %s gets %s, and at first %s", version, left, first)
			}
		}
	})
}

func TestCurlRouteChatOverHTTP1Gets505(t *testing.T) {
	t.Parallel()
	printed := run(t, installed(t, "curl"), "-sS", "-i", "-d", `{}`, "-H", "Content-Type: application/json",
		"http://"+startOurs(t)+"/routeguide.RouteGuide/RouteChat")
	for _, want := range []string{"505", "needs HTTP/2", "--http2-prior-knowledge"} {
		if !strings.Contains(printed, want) {
			t.Errorf("curl gets\n%s\nwant %s", printed, want)
		}
	}
}

func TestCurlOverHTTP2(t *testing.T) {
	t.Parallel()
	inClearAndTLS(t, func(t *testing.T, url, certificate string) {
		args := []string{"-sS", "--fail", "--http2-prior-knowledge"}
		if certificate != "" {
			args = []string{"-sS", "--fail", "--http2", "--cacert", certificate}
		}
		args = append(args, "-w", " HTTP/%{http_version}", "-H")
		feature := run(t, installed(t, "curl"), append(args, "Content-Type: application/json", "-d", berkshireValley, url+getFeature)...)
		if !strings.Contains(feature, "Berkshire Valley") || !strings.HasSuffix(feature, " HTTP/2") {
			t.Errorf("GetFeature gives %q", feature)
		}
		checkTwoNotes(t, run(t, installed(t, "curl"), append(args, "Content-Type: application/connect+json",
			"--data-binary", "@"+requestFile(t, true, noteOne, noteTwo), url+routeChat)...))
	})
}
