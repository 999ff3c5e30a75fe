package command

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progressEvery is how often a terminal is written to.
const progressEvery = 200 * time.Millisecond

// Progress is a line on a terminal that says how far a command is. It is for one goroutine at a time.
type Progress struct {
	out   io.Writer // nil if it is no terminal
	shown time.Time
}

// NewProgress returns a line on stderr, if that is a terminal. If not, nothing is ever shown.
func NewProgress(stderr io.Writer) *Progress {
	if file, ok := stderr.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return &Progress{out: stderr}
	}
	return &Progress{}
}

// Showf shows a formatted line in the place of the one before, unless that is quite new.
func (p *Progress) Showf(format string, args ...any) {
	if now := time.Now(); p.out != nil && now.Sub(p.shown) >= progressEvery {
		p.shown = now
		fmt.Fprintf(p.out, "\r\033[K"+format, args...)
	}
}

// End takes the line away.
func (p *Progress) End() {
	if !p.shown.IsZero() {
		fmt.Fprint(p.out, "\r\033[K")
	}
}
