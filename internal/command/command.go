// Package command is the command line of both commands: flags and their environment variables, exit codes, and
// shutdown on signals.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// Exit codes.
const (
	ExitOK    = 0
	ExitError = 1
	ExitUsage = 2
)

// ErrHelp means that --help or --version was given, and the text was printed.
var ErrHelp = errors.New("help requested")

// A UsageError is an error in the arguments or the environment. It gives ExitUsage.
type UsageError struct {
	Err error
}

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns e.Err.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef returns a [*UsageError] with a formatted text.
func Usagef(format string, args ...any) error {
	return &UsageError{Err: fmt.Errorf(format, args...)}
}

// Parsed is the result of Parse, besides the flags in the grammar.
type Parsed struct {
	// Command is the subcommand, if the grammar has any.
	Command string
	// Renamed has a warning for each old name of a flag or variable that was used.
	Renamed []string
}

// Parse parses args and the environment into grammar, a pointer to a struct with kong's tags. Each flag has an
// environment variable: ROUTEGUIDE_ and the flag's name in upper case, with underscores. An empty variable counts as
// unset. Arguments override the environment. Durations may have days. A flag with the tag renamed:"old" also works by
// its old name. The variables are kong's, for help texts. The error is [ErrHelp] or a [*UsageError].
func Parse(grammar any, name, description string, variables map[string]string, args []string, stdout, stderr io.Writer) (Parsed, error) {
	exited := false
	vars := kong.Vars{"version": name + " " + ThisBuild().String()}
	maps.Copy(vars, variables)
	parser, err := kong.New(grammar,
		kong.Name(name),
		kong.Description(description),
		kong.DefaultEnvars(prefix),
		kong.PostBuild(func(parser *kong.Kong) error {
			if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
				return acceptRenamed(parser, false) // Help shows all variables by their new names, also empty ones.
			}
			return errors.Join(acceptRenamed(parser, true), ignoreEmptyVariables(parser))
		}),
		mapper(parseDuration),
		mapper(parseLevel),
		vars,
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { exited = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
	if err != nil {
		return Parsed{}, err
	}
	parsed, err := parser.Parse(args)
	if exited {
		return Parsed{}, ErrHelp
	}
	if err != nil {
		return Parsed{}, &UsageError{Err: err}
	}
	return Parsed{Command: parsed.Command(), Renamed: renamed(parser, args)}, nil
}

// ignoreEmptyVariables removes empty environment variables from their flags: kong would parse them.
func ignoreEmptyVariables(parser *kong.Kong) error {
	return visitFlags(parser, func(flag *kong.Flag) {
		flag.Tag.Envs = slices.DeleteFunc(flag.Tag.Envs, func(name string) bool {
			value, set := os.LookupEnv(name)
			return set && value == ""
		})
	})
}

// untilSignal returns a context that the first SIGINT or SIGTERM cancels. By then a second one kills the process, which is
// why this is not [signal.NotifyContext]: that takes signals for a moment longer.
func untilSignal() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-signals:
			signal.Stop(signals)
			cancel()
		case <-ctx.Done():
			signal.Stop(signals)
		}
	}()
	return ctx, func() {
		cancel()
		<-watched
	}
}

// Main runs a command and returns the exit code. SIGINT or SIGTERM cancels the command's context; a second signal kills
// the process. An error is printed to stderr, in one line.
func Main(name string, run func(ctx context.Context, args []string, stdout, stderr io.Writer) error) int {
	ctx, stop := untilSignal()
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	var usage *UsageError
	switch {
	case err == nil, errors.Is(err, ErrHelp):
		return ExitOK
	case errors.As(err, &usage):
		Report(os.Stderr, name, fmt.Errorf("%w (try --help)", err))
		return ExitUsage
	default:
		Report(os.Stderr, name, err)
		return ExitError
	}
}

// reportTimeout is the timeout of Report.
const reportTimeout = time.Second

// Report prints an error of the command name, in one line. It gives up after a second if stderr is a pipe that nobody
// reads: that must not keep the process from exiting.
func Report(stderr io.Writer, name string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
	}()
	select {
	case <-done:
	case <-time.After(reportTimeout):
	}
}
