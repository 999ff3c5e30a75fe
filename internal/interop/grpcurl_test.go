package interop

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"example.com/routeguide/internal/process"
)

func TestGrpcurlListsAndDescribes(t *testing.T) {
	t.Parallel()
	address := startOurs(t)
	listed := strings.Fields(run(t, grpcurl, "-plaintext", address, "list"))
	for _, want := range []string{"routeguide.RouteGuide", "routeguide.v1.NoteService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} {
		if !strings.Contains(strings.Join(listed, " "), want) {
			t.Errorf("grpcurl lists %v, want %s too", listed, want)
		}
	}
	described := run(t, grpcurl, "-plaintext", address, "describe", "routeguide.RouteGuide")
	if want := "rpc RouteChat ( stream .routeguide.RouteNote ) returns ( stream .routeguide.RouteNote );"; !strings.Contains(described, want) {
		t.Errorf("grpcurl describes\n%s\nwant %s", described, want)
	}
}

func TestGrpcurlLeaveNote(t *testing.T) {
	t.Parallel()
	address := startOurs(t)
	for range 2 {
		left := run(t, grpcurl, "-plaintext", "-d", noteToLeave, address, strings.TrimPrefix(leaveNote, "/"))
		if !strings.Contains(left, `"position": "1"`) || !strings.Contains(left, `"text": "one"`) {
			t.Errorf("grpcurl gets %s", left)
		}
	}
	printed, err := process.Run(t.Context(), grpcurl, "-plaintext", "-d", strings.Replace(noteToLeave, "one", "two", 1), address, strings.TrimPrefix(leaveNote, "/"))
	if err == nil || !strings.Contains(printed, "AlreadyExists") {
		t.Errorf("another text with the same id: grpcurl gets %s", printed)
	}
}

func TestGrpcurlHealthCheckAndWatch(t *testing.T) {
	t.Parallel()
	address := startOurs(t)
	for _, request := range []string{`{}`, `{"service": "routeguide.RouteGuide"}`, `{"service": "routeguide.v1.NoteService"}`} {
		if health := run(t, grpcurl, "-plaintext", "-d", request, address, "grpc.health.v1.Health/Check"); !strings.Contains(health, `"SERVING"`) {
			t.Errorf("health check %s: %s", request, health)
		}
	}
	watch, err := process.Start(grpcurl, "-plaintext", "-d", "{}", address, "grpc.health.v1.Health/Watch")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Await(`"SERVING"`); err != nil {
		t.Error(err)
	}
	if err := watch.Kill(); err != nil {
		t.Error(err)
	}
}

// An interactive session: each note is sent after the reply to the previous one.
func TestGrpcurlInteractiveRouteChat(t *testing.T) {
	t.Parallel()
	session, err := process.Start(grpcurl, "-plaintext", "-d", "@", startOurs(t), "routeguide.RouteGuide/RouteChat")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ note, reply string }{
		{`{"location": {"longitude": 1}, "message": "one"}`, `(?s)"one"`},
		{`{"location": {"longitude": 2}, "message": "elsewhere"}`, `(?s)"elsewhere"`},
		{`{"location": {"longitude": 1}, "message": "two"}`, `(?s)"elsewhere".*"one".*"two"`},
	} {
		if err := session.Type(step.note); err != nil {
			t.Fatal(err)
		}
		if _, err := session.Await(step.reply); err != nil {
			t.Fatal(err)
		}
	}
	if err := session.CloseInput(); err != nil {
		t.Fatal(err)
	}
	if code, err := session.Wait(); code != 0 || err != nil {
		t.Errorf("grpcurl ended with exit code %d, %v:\n%s", code, err, session.Printed())
	}
}

// The session in the README: both chats print both notes.
func TestGrpcurlDocumentedSessionOfTwoChats(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^ {4}grpcurl (.*routeguide-follow.*)$`).FindSubmatch(readme)
	notes := regexp.MustCompile(`(?m)^ {4}(\{"location": .*\})$`).FindAllSubmatch(readme, -1)
	if command == nil || len(notes) != 2 {
		t.Fatalf("the README has the command %q and the notes %q", command, notes)
	}
	shell := "exec " + grpcurl + " " + strings.Replace(string(command[1]), "localhost:50051", startOurs(t), 1)
	var chats []*process.Process
	for i, note := range notes {
		chat, err := process.Start("sh", "-c", shell)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := chat.Kill(); err != nil {
				t.Error(err)
			}
		})
		chats = append(chats, chat)
		if err := chat.Type(string(note[1])); err != nil {
			t.Fatal(err)
		}
		for _, chat := range chats {
			if _, err := chat.Await([]string{`Anyone here\?`, `(?s)Anyone here\?.*I am\.`}[i]); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestGrpcurlGetsBadRequestDetail(t *testing.T) {
	t.Parallel()
	printed, err := process.Run(t.Context(), grpcurl, "-plaintext", "-d", `{"message": "where?"}`, startOurs(t), "routeguide.RouteGuide/RouteChat")
	if err == nil {
		t.Fatal("a note without a location is accepted")
	}
	for _, want := range []string{"InvalidArgument", "location: must be set", "google.rpc.BadRequest"} {
		if !strings.Contains(printed, want) {
			t.Errorf("grpcurl printed\n%s\nwant %s", printed, want)
		}
	}
}
