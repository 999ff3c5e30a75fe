package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/routeguide/internal/process"
)

// start runs the client until the test ends.
func start(t *testing.T, args ...string) *process.Process {
	t.Helper()
	return startProgram(t, clientProgram, args...)
}

func startProgram(t *testing.T, program string, args ...string) *process.Process {
	t.Helper()
	started, err := process.Start(program, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := started.Kill(); err != nil {
			t.Error(err)
		}
	})
	return started
}

func await(t *testing.T, running *process.Process, pattern string) {
	t.Helper()
	if _, err := running.Await(pattern); err != nil {
		t.Fatal(err)
	}
}

func typeLine(t *testing.T, running *process.Process, line string) {
	t.Helper()
	if err := running.Type(line); err != nil {
		t.Fatal(err)
	}
}

func exits(t *testing.T, running *process.Process, want int) {
	t.Helper()
	if code, err := running.Wait(); err != nil || code != want {
		t.Errorf("exit code %d, %v, want %d; it printed:\n%s", code, err, want, running.Printed())
	}
}

// Two people chat through pipes: each sees what the other leaves, and not what they have typed themselves.
func TestChatInPlainLines(t *testing.T) {
	t.Parallel()
	url := startServer(t, "--max-text", "20")
	ann := start(t, "chat", "--addr", url, "--at", "-1.5,2")
	await(t, ann, `(?m)^client: nobody has left a note here yet$`)
	ben := start(t, "chat", "--addr", url, "--at", "-1.5,2", "--protocol", "grpc")
	typeLine(t, ann, "hello from Ann")
	await(t, ben, `(?m)^\d\d:\d\d hello from Ann$`)
	typeLine(t, ben, "") // Nothing to leave.
	typeLine(t, ben, "hello from Ben")
	await(t, ann, `(?m)^\d\d:\d\d hello from Ben$`)
	typeLine(t, ann, "a text that is too long for this server")
	await(t, ann, `(?m)^client: not left: a text that is .*: invalid_argument: text: .*$`)
	typeLine(t, ann, "\tbye")
	await(t, ben, `(?m)^\d\d:\d\d "\\tbye"$`)
	if strings.Contains(ann.Printed(), "from Ann") || strings.Contains(ben.Printed(), "from Ben") {
		t.Errorf("they print:\n%s\n%s", ann.Printed(), ben.Printed())
	}
	// What was typed last is left before the end.
	typeLine(t, ben, "the last word")
	if err := ben.CloseInput(); err != nil {
		t.Fatal(err)
	}
	exits(t, ben, 0)
	await(t, ann, `(?m)^\d\d:\d\d the last word$`)
	if err := ann.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	exits(t, ann, 1) // A note was refused.
}

// A chat that ends while there is no connection waits until its notes are left, or until Ctrl-C, and says what may not have been left.
func TestChatWithoutServer(t *testing.T) {
	t.Parallel()
	// Ctrl-C is for the shell, too, once the chat has restored the terminal; without a trap, dash would end of it.
	terminal := startInTerminal(t, "trap : INT; "+clientProgram+" chat --addr "+nobody(t)+" --at 1,2; echo code $?")
	await(t, terminal, `\* not connected, trying again: unavailable: .*connection refused`)
	for _, line := range []string{"one", "two", "\x04"} { // Ctrl-D
		typeLine(t, terminal, line)
	}
	await(t, terminal, `\* notes to be left: 2; Ctrl-C gives up`)
	typeLine(t, terminal, "\x03") // Ctrl-C
	await(t, terminal, `client: 2 of the notes that were typed may not have been left`)
	await(t, terminal, `code 1`)
	exits(t, terminal, 0)
}

// startInTerminal runs a shell command in a terminal of its own, which script, of Debian's bsdutils, makes.
func startInTerminal(t *testing.T, command string) *process.Process {
	t.Helper()
	return startProgram(t, "script", "--quiet", "--return", "--command", command, "/dev/null")
}

// In a terminal, the notes of others come above the line that is typed, and the terminal's settings are restored.
func TestChatInTerminal(t *testing.T) {
	t.Parallel()
	url, folder := startServer(t), t.TempDir()
	before, after := filepath.Join(folder, "before"), filepath.Join(folder, "after")
	terminal := startInTerminal(t, "stty -g >"+before+"; "+clientProgram+" chat --at 1,2 --addr "+url+"; echo code $?; stty -g >"+after)
	await(t, terminal, `\* nobody has left a note here yet\r\n> $`)
	other := start(t, "chat", "--addr", url, "--at", "1,2")
	typeLine(t, terminal, "typed here")
	await(t, other, `\d\d:\d\d typed here`)
	typeLine(t, other, "typed elsewhere")
	// The cursor goes back to the beginning of the line, which is cleared, and typed again below the note.
	await(t, terminal, `> typed here\r\n> \x1b\[2D\x1b\[K\d\d:\d\d typed elsewhere\r\n> $`)
	if strings.Count(terminal.Printed(), "typed here") != 1 {
		t.Errorf("it prints %q", terminal.Printed())
	}
	typeLine(t, terminal, "\x04") // Ctrl-D
	await(t, terminal, `code 0`)
	exits(t, terminal, 0)
	was, err := os.ReadFile(before)
	if err != nil {
		t.Fatal(err)
	}
	is, err := os.ReadFile(after)
	if err != nil {
		t.Fatal(err)
	}
	if len(was) == 0 || string(was) != string(is) {
		t.Errorf("the settings of the terminal were %s, and are %s", was, is)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	if got := clock(time.Now()); !regexp.MustCompile(`^\d\d:\d\d$`).MatchString(got) {
		t.Errorf("now is %q", got)
	}
	if got := clock(time.Now().AddDate(-1, 0, 0)); !regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d$`).MatchString(got) {
		t.Errorf("last year is %q", got)
	}
}
