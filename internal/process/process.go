// Package process builds and runs programs for tests and benchmarks: our server and client, and stock tools.
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

// waitTimeout is the timeout of Await and Wait. It is far longer than a program needs, so that only a hang reaches it.
const waitTimeout = 30 * time.Second

// Build builds a main package of the module that contains dir, with flags of go build, and returns the path of the
// program in folder. The path depends on pkg and flags.
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
	done    chan struct{} // closed when the program has ended
	err     error         // of exec.Cmd.Wait; set before done is closed

	mu      sync.Mutex // guards the rest
	output  bytes.Buffer
	printed chan struct{} // closed and replaced by each Write
}

// Start starts a program. Printed returns its standard output and error.
func Start(program string, args ...string) (*Process, error) {
	return StartWith(nil, program, args...)
}

// StartWith is [Start] with variables added to the environment.
func StartWith(environment []string, program string, args ...string) (*Process, error) {
	process := &Process{
		command: exec.Command(program, args...),
		done:    make(chan struct{}),
		printed: make(chan struct{}),
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

// Write receives the program's output. Only os/exec calls it.
func (p *Process) Write(output []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.printed)
	p.printed = make(chan struct{})
	return p.output.Write(output)
}

// Printed returns the output so far.
func (p *Process) Printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// PID returns the process ID.
func (p *Process) PID() int {
	return p.command.Process.Pid
}

// Type writes a line to standard input.
func (p *Process) Type(line string) error {
	_, err := io.WriteString(p.input, line+"\n")
	return err
}

// CloseInput closes standard input.
func (p *Process) CloseInput() error {
	return p.input.Close()
}

// Await waits until the output matches pattern, and returns the match and its groups. It returns an error if the
// program ends first.
func (p *Process) Await(pattern string) ([]string, error) {
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	timeout := time.After(waitTimeout)
	for {
		p.mu.Lock()
		match, printed := expression.FindStringSubmatch(p.output.String()), p.printed
		p.mu.Unlock()
		if match != nil {
			return match, nil
		}
		select {
		case <-printed:
		case <-p.done:
			// The last output may have arrived since.
			if match := expression.FindStringSubmatch(p.Printed()); match != nil {
				return match, nil
			}
			return nil, fmt.Errorf("%s ended (%w) before it printed %q; it printed:\n%s", p.command, p.err, pattern, p.Printed())
		case <-timeout:
			return nil, fmt.Errorf("%s did not print %q within %v; it printed:\n%s", p.command, pattern, waitTimeout, p.Printed())
		}
	}
}

// Signal sends a signal to the program.
func (p *Process) Signal(signal os.Signal) error {
	return p.command.Process.Signal(signal)
}

// Wait waits for the program to end, and returns its exit code: -1 if a signal killed it.
func (p *Process) Wait() (int, error) {
	select {
	case <-p.done:
		return p.command.ProcessState.ExitCode(), nil
	case <-time.After(waitTimeout):
		return 0, fmt.Errorf("%s did not end within %v; it printed:\n%s", p.command, waitTimeout, p.Printed())
	}
}

// Stop sends SIGTERM and waits for the program to end. It returns an error unless the exit code is 0 or that signal
// killed the program. After a timeout it kills the program.
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

// Kill sends SIGKILL and waits for the program to end.
func (p *Process) Kill() error {
	if err := p.command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Run runs a program to its end and returns its output. It returns an error if the exit code is not 0.
func Run(ctx context.Context, program string, args ...string) (string, error) {
	output, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return string(output), fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, output)
	}
	return string(output), nil
}

// StartServer starts our server on a free port of 127.0.0.1, and returns it with its address once it serves.
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

// Running returns whether the program is still running.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
