package interop

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

var gotMessage = regexp.MustCompile(`Got message (\w+) message at point\(0, (\d)\)`)

// checkChat fails the test unless printed has the nine notes of the tutorial's chat on a fresh server. The client sends
// six notes without waiting for replies, and the server answers them in order.
func checkChat(t *testing.T, printed string) {
	t.Helper()
	var got []string
	for _, match := range gotMessage.FindAllStringSubmatch(printed, -1) {
		got = append(got, match[1]+match[2])
	}
	want := strings.Fields("First1 Second2 Third3 First1 Fourth1 Second2 Fifth2 Third3 Sixth3")
	if !slices.Equal(got, want) {
		t.Errorf("the chat received %v, want %v", got, want)
	}
}

func TestStockClientAgainstOurServer(t *testing.T) {
	t.Parallel()
	printed := run(t, stockClient, "-addr", startOurs(t))
	t.Logf("the stock client printed:\n%s", printed)
	for _, want := range []string{
		`name:"Berkshire Valley Management Area Trail, Jefferson, NJ, USA"`,
		`location:\{\}`,
		`Route summary: point_count:\d+`,
	} {
		if !regexp.MustCompile(want).MatchString(printed) {
			t.Errorf("the stock client did not print %s", want)
		}
	}
	if listed := strings.Count(printed, "Feature: name: "); listed < 100 {
		t.Errorf("the stock client listed %d features, want a few hundred", listed)
	}
	checkChat(t, printed)
}

func TestOurClientAgainstOurServer(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"connect", "grpc", "grpcweb"} {
		for _, codec := range []string{"proto", "json"} {
			t.Run(protocol+" "+codec, func(t *testing.T) {
				t.Parallel()
				printed := run(t, ourClient, "--addr", "http://"+startOurs(t), "--protocol", protocol, "--codec", codec)
				if listed := strings.Count(printed, "Listed "); listed < 100 {
					t.Errorf("our client listed %d features, want a few hundred", listed)
				}
				checkChat(t, printed)
			})
		}
	}
}

func TestOurClientAgainstStockServer(t *testing.T) {
	t.Parallel()
	printed := run(t, ourClient, "--addr", "http://"+startStock(t), "--protocol", "grpc")
	t.Logf("our client printed:\n%s", printed)
	if !strings.Contains(printed, "Berkshire Valley Management Area Trail") {
		t.Error("our client did not get the feature")
	}
	checkChat(t, printed)
}

func TestOurLoadAgainstStockServer(t *testing.T) {
	t.Parallel()
	address := startStock(t)
	for _, mode := range []string{"one-at-a-time", "written-ahead", "replay", "idle"} {
		printed := run(t, ourClient, "load", "--addr", "http://"+address, "--mode", mode,
			"--ahead", "50", "--history", "20", "--notes", "500", "--note-bytes", "20000", "--duration", "300ms", "--json")
		if !strings.Contains(printed, `"errors": 0`) || strings.Contains(printed, `"replies": 0`) {
			t.Errorf("%s: %s", mode, printed)
		}
	}
}
