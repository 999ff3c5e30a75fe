package interop

import (
	"encoding/binary"
	"encoding/hex"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/internal/process"
	"google.golang.org/protobuf/proto"
)

const (
	getFeature  = "/routeguide.RouteGuide/GetFeature"
	routeChat   = "/routeguide.RouteGuide/RouteChat"
	leaveNote   = "/routeguide.v1.NoteService/LeaveNote"
	followNotes = "/routeguide.v1.NoteService/FollowNotes"
)

// installed returns the path of a program of the system.
func installed(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: run `make tools`, or install it with your system's packages: %v", program, err)
	}
	return path
}

// inClearAndTLS runs a test with the URL of a fresh server, in clear and over TLS. The certificate is empty in clear.
func inClearAndTLS(t *testing.T, test func(t *testing.T, url, certificate string)) {
	t.Helper()
	t.Run("in clear", func(t *testing.T) {
		t.Parallel()
		test(t, "http://"+startOurs(t), "")
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		certificate, key := certtest.SelfSigned(t)
		test(t, "https://"+startOurs(t, "--tls-cert", certificate, "--tls-key", key), certificate)
	})
}

// requestFile writes a request in JSON to a file and returns the path: one message, or those of a stream in Connect's protocol.
func requestFile(t *testing.T, stream bool, messages ...string) string {
	t.Helper()
	var body []byte
	for _, message := range messages {
		if stream {
			body = binary.BigEndian.AppendUint32(append(body, 0), uint32(len(message)))
		}
		body = append(body, message...)
	}
	path := filepath.Join(t.TempDir(), "request")
	writeFile(t, path, string(body))
	return path
}

const (
	berkshireValley = `{"latitude": 409146138, "longitude": -746188906}`
	noteOne         = `{"location": {"longitude": 1}, "message": "one"}`
	noteTwo         = `{"location": {"longitude": 1}, "message": "two"}`
	noteToLeave     = `{"location": {"longitude": 1}, "text": "one", "id": "1"}`
)

// checkTwoNotes fails the test unless the responses of a chat with noteOne and noteTwo, and its successful end, are in printed.
func checkTwoNotes(t *testing.T, printed string) {
	t.Helper()
	if strings.Count(printed, `"one"`) != 2 || strings.Count(printed, `"two"`) != 1 || strings.Contains(printed, "error") {
		t.Errorf("RouteChat gives %q", printed)
	}
}

func TestNghttp(t *testing.T) {
	t.Parallel()
	inClearAndTLS(t, func(t *testing.T, url, _ string) {
		feature := run(t, installed(t, "nghttp"), "-d", requestFile(t, false, berkshireValley), "-H", "content-type: application/json", url+getFeature)
		if !strings.Contains(feature, "Berkshire Valley") {
			t.Errorf("GetFeature gives %q", feature)
		}
		checkTwoNotes(t, run(t, installed(t, "nghttp"), "-d", requestFile(t, true, noteOne, noteTwo), "-H", "content-type: application/connect+json", url+routeChat))
	})
}

func TestH2load(t *testing.T) {
	t.Parallel()
	inClearAndTLS(t, func(t *testing.T, url, _ string) {
		for path, args := range map[string][]string{
			getFeature: {"-H", "content-type: application/json", "-d", requestFile(t, false, berkshireValley)},
			routeChat:  {"-H", "content-type: application/connect+json", "-d", requestFile(t, true, noteOne)},
		} {
			printed := run(t, installed(t, "h2load"), append(args, "-n", "200", "-c", "4", "-m", "50", url+path)...)
			for _, want := range []string{"200 succeeded, 0 failed, 0 errored, 0 timeout", "200 2xx"} {
				if !strings.Contains(printed, want) {
					t.Errorf("h2load printed\n%s\nwant %q", printed, want)
				}
			}
		}
	})
}

func TestGRPCCore(t *testing.T) {
	t.Parallel()
	// Debian has gRPC as a package of its own Python, which need not be the first one on the path.
	const python = "/usr/bin/python3"
	if printed, err := process.Run(t.Context(), python, "-c", "import grpc"); err != nil {
		t.Fatalf("gRPC for Python is not installed: run `make tools`, or install it with your system's packages: %v\n%s", err, printed)
	}
	inClearAndTLS(t, func(t *testing.T, url, certificate string) {
		_, address, _ := strings.Cut(url, "://")
		start := func(method string) *process.Process {
			args := []string{"testdata/grpccore.py", address, method}
			if certificate != "" {
				args = append(args, certificate)
			}
			call, err := process.Start(python, args...)
			if err != nil {
				t.Fatal(err)
			}
			return call
		}
		end := func(call *process.Process) {
			if err := call.CloseInput(); err != nil {
				t.Fatal(err)
			}
			if code, err := call.Wait(); code != 0 || err != nil {
				t.Errorf("the call ended with exit code %d, %v:\n%s", code, err, call.Printed())
			}
		}
		feature := start(getFeature)
		send(t, feature, &routeguide.Point{Latitude: 409146138, Longitude: -746188906})
		end(feature)
		if !strings.Contains(feature.Printed(), hex.EncodeToString([]byte("Berkshire Valley"))) {
			t.Errorf("GetFeature gives %s", feature.Printed())
		}
		// Each note is sent after the reply to the previous one.
		chat := start(routeChat)
		one, two := hex.EncodeToString([]byte("one")), hex.EncodeToString([]byte("two"))
		for _, step := range []struct{ text, reply string }{{"one", one}, {"two", "(?s)" + one + ".*" + one + ".*" + two}} {
			send(t, chat, &routeguide.RouteNote{Location: &routeguide.Point{Longitude: 1}, Message: step.text})
			if _, err := chat.Await(step.reply); err != nil {
				t.Fatal(err)
			}
		}
		end(chat)
	})
}

// send sends a message in a call by testdata/grpccore.py.
func send(t *testing.T, call *process.Process, message proto.Message) {
	t.Helper()
	encoded, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	if err := call.Type(hex.EncodeToString(encoded)); err != nil {
		t.Fatal(err)
	}
}
