package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// A console is where a chat is typed and shown.
type console interface {
	// ReadLine returns the next line that is typed, and io.EOF after the last one.
	ReadLine() (string, error)
	// Write shows lines. It may be called while ReadLine waits.
	io.Writer
	// Say shows a line about the chat itself. It may be called while ReadLine waits.
	Say(text string)
	// End is called after the last line, with the number of notes that wait to be left.
	End(unsent int64)
	// Close restores the settings of a terminal. It may be called while ReadLine waits, and more than once.
	Close()
}

// openConsole returns a terminal if stdin and stdout are one, and plain lines otherwise.
func openConsole(stdin *os.File, stdout, stderr io.Writer) (console, error) {
	out, ok := stdout.(*os.File)
	if !ok || !term.IsTerminal(int(stdin.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return plainConsole{bufio.NewReader(stdin), stdout, stderr}, nil
	}
	before, err := term.MakeRaw(int(stdin.Fd()))
	if err != nil {
		return nil, fmt.Errorf("set up the terminal: %w", err)
	}
	screen := &screen{File: stdin, out: out}
	screen.editor = term.NewTerminal(screen, "> ")
	screen.resize()
	return &terminalConsole{screen.editor, screen, sync.OnceFunc(func() {
		_ = term.Restore(int(stdin.Fd()), before)
		fmt.Fprintln(out) // The line of the prompt is over.
	})}, nil
}

// A plainConsole has lines without an editor.
type plainConsole struct {
	in *bufio.Reader
	io.Writer

	stderr io.Writer
}

func (c plainConsole) ReadLine() (string, error) {
	text, err := c.in.ReadString('\n')
	if text != "" {
		return strings.TrimRight(text, "\r\n"), nil
	}
	return "", err
}

func (c plainConsole) Say(text string) { say(c.stderr, text) }

func (plainConsole) End(int64) {}

func (plainConsole) Close() {}

// say prints a line about what the command is doing.
func say(stderr io.Writer, text string) {
	fmt.Fprintf(stderr, "client: %s\n", text)
}

// A terminalConsole has an editor for the line that is typed, and shows other lines above it.
type terminalConsole struct {
	*term.Terminal

	screen *screen
	close  func()
}

func (c *terminalConsole) Write(lines []byte) (int, error) {
	c.screen.resize()
	return c.Terminal.Write(lines)
}

func (c *terminalConsole) Say(text string) { fmt.Fprintf(c, "* %s\n", text) }

func (c *terminalConsole) End(unsent int64) {
	c.SetPrompt("")
	c.Close() // From now on, Ctrl-C is a signal.
	if unsent > 0 {
		c.Say(fmt.Sprintf("notes to be left: %d; Ctrl-C gives up", unsent))
	}
}

func (c *terminalConsole) Close() { c.close() }

// A screen is what the editor reads and writes. It asks for the size at each key, because Windows has no signal that tells it.
type screen struct {
	*os.File // stdin

	out    *os.File
	editor *term.Terminal
}

func (s *screen) Read(keys []byte) (int, error) {
	n, err := s.File.Read(keys)
	s.resize()
	return n, err
}

func (s *screen) Write(text []byte) (int, error) { return s.out.Write(text) }

func (s *screen) resize() {
	if width, height, err := term.GetSize(int(s.out.Fd())); err == nil && width > 0 {
		_ = s.editor.SetSize(width, height)
	}
}
