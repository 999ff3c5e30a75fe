// Package process builds and runs real programs for tests: the server, its clients, and the stock
// ones.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a program may take to print or do what it is waited for: far longer than it
// ever takes, so that it passes only when something is wrong.
const patience = 30 * time.Second

// Build compiles a main package of the module that contains dir and returns the path of the program
// in folder. Flags are those of go build; programs with different ones have different paths.
func Build(dir, pkg, folder string, flags ...string) (string, error) {
	program := filepath.Join(folder, strings.ReplaceAll(pkg+strings.Join(flags, ""), "/", "_"))
	command := exec.Command("go", append(append([]string{"build"}, flags...), "-o", program, pkg)...)
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	return program, nil
}

// A Process is a running program. Its methods may be called concurrently.
type Process struct {
	command *exec.Cmd
	input   io.WriteCloser
	done    chan struct{}
	err     error // is set before done is closed

	mu      sync.Mutex // guards the rest
	printed bytes.Buffer
	more    chan struct{} // is closed and replaced when more is printed
}

// Start runs a program. Its standard output and error both come to Printed.
func Start(program string, args ...string) (*Process, error) {
	return StartWith(nil, program, args...)
}

// StartWith is [Start] with variables added to the environment.
func StartWith(environment []string, program string, args ...string) (*Process, error) {
	process := &Process{
		command: exec.Command(program, args...),
		done:    make(chan struct{}),
		more:    make(chan struct{}),
	}
	process.command.Env = append(os.Environ(), environment...)
	process.command.Stdout = process
	process.command.Stderr = process
	input, err := process.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	process.input = input
	if err := process.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(process.done)
		process.err = process.command.Wait()
	}()
	return process, nil
}

// Write takes what the program prints. It is for the program only.
func (p *Process) Write(printed []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.more)
	p.more = make(chan struct{})
	return p.printed.Write(printed)
}

// Printed returns what the program has printed so far.
func (p *Process) Printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.printed.String()
}

// PID returns the process's number in the operating system.
func (p *Process) PID() int {
	return p.command.Process.Pid
}

// Type writes a line to the program's standard input.
func (p *Process) Type(line string) error {
	_, err := io.WriteString(p.input, line+"\n")
	return err
}

// CloseInput ends the program's standard input.
func (p *Process) CloseInput() error {
	return p.input.Close()
}

// Await waits until what the program has printed matches pattern, and returns the match and its
// groups. It is an error if the program ends first.
func (p *Process) Await(pattern string) ([]string, error) {
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	timeout := time.After(patience)
	for {
		p.mu.Lock()
		match, more := expression.FindStringSubmatch(p.printed.String()), p.more
		p.mu.Unlock()
		if match != nil {
			return match, nil
		}
		select {
		case <-more:
		case <-p.done:
			// What it printed last may have come since.
			if match := expression.FindStringSubmatch(p.Printed()); match != nil {
				return match, nil
			}
			return nil, fmt.Errorf("%s ended (%w) before it printed %q; it printed:\n%s", p.command, p.err, pattern, p.Printed())
		case <-timeout:
			return nil, fmt.Errorf("%s did not print %q within %v; it printed:\n%s", p.command, pattern, patience, p.Printed())
		}
	}
}

// Signal sends the program a signal.
func (p *Process) Signal(signal os.Signal) error {
	return p.command.Process.Signal(signal)
}

// Wait waits until the program ends, and returns its exit code: -1 if a signal ended it.
func (p *Process) Wait() (int, error) {
	select {
	case <-p.done:
		return p.command.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return 0, fmt.Errorf("%s did not end within %v; it printed:\n%s", p.command, patience, p.Printed())
	}
}

// Stop ends the program with SIGTERM and waits for it. It is an error if that takes too long, or
// if the program ends in another way than with exit code 0 or by that signal.
func (p *Process) Stop() error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if _, err := p.Wait(); err != nil {
		return errors.Join(err, p.Kill())
	}
	if status, ok := p.command.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return nil
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w; it printed:\n%s", p.command, p.err, p.Printed())
	}
	return nil
}

// Kill ends the program with SIGKILL and waits for it.
func (p *Process) Kill() error {
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Run runs a program to its end and returns what it printed. It is an error if its exit code is not
// 0.
func Run(ctx context.Context, program string, args ...string) (string, error) {
	output, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return string(output), fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, output)
	}
	return string(output), nil
}

// StartServer runs a RouteGuide server, built from this module, on a free port of 127.0.0.1, and
// returns it with its address once it serves.
func StartServer(program string, args ...string) (server *Process, address string, err error) {
	return StartServerWith(nil, program, args...)
}

// StartServerWith is [StartServer] with variables added to the environment.
func StartServerWith(environment []string, program string, args ...string) (server *Process, address string, err error) {
	server, err = StartWith(environment, program, append([]string{"--listen", "127.0.0.1:0"}, args...)...)
	if err != nil {
		return nil, "", err
	}
	match, err := server.Await(`listen=(\S+)`)
	if err != nil {
		return nil, "", errors.Join(err, server.Kill())
	}
	return server, match[1], nil
}

// Running returns whether the program has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
