package command

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progressInterval is the minimum time between two updates of the terminal.
const progressInterval = 200 * time.Millisecond

// Progress is a status line on a terminal. It is not safe for concurrent use.
type Progress struct {
	out     io.Writer // nil if stderr is not a terminal
	updated time.Time
}

// NewProgress returns a status line on stderr. If stderr is not a terminal, nothing is printed.
func NewProgress(stderr io.Writer) *Progress {
	if file, ok := stderr.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return &Progress{out: stderr}
	}
	return &Progress{}
}

// Showf replaces the line with a formatted one, at most five times a second.
func (p *Progress) Showf(format string, args ...any) {
	if now := time.Now(); p.out != nil && now.Sub(p.updated) >= progressInterval {
		p.updated = now
		fmt.Fprintf(p.out, "\r\033[K"+format, args...)
	}
}

// End clears the line.
func (p *Progress) End() {
	if !p.updated.IsZero() {
		fmt.Fprint(p.out, "\r\033[K")
	}
}
