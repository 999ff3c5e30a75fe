// Package command is what the commands of this module share: how arguments and environment are
// read, which exit code an error gives, and how signals end a run.
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

// The exit codes of a command.
const (
	ExitOK    = 0
	ExitError = 1
	ExitUsage = 2
)

// ErrHelp says that the arguments asked for help, which has been printed.
var ErrHelp = errors.New("help was asked for")

// A UsageError says that the command was called in a way that makes no sense.
type UsageError struct {
	Err error
}

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *UsageError) Unwrap() error { return e.Err }

// Usagef returns a [*UsageError] with a formatted text.
func Usagef(format string, args ...any) error {
	return &UsageError{Err: fmt.Errorf(format, args...)}
}

// Parsed is what arguments and environment were read into.
type Parsed struct {
	// Command is the command that was chosen, if there are several.
	Command string
	// Renamed has a line for each old name of a flag or a variable that was used.
	Renamed []string
}

// Parse reads args into grammar, a pointer to a struct with kong's tags. Each flag can also be
// given as an environment variable: ROUTEGUIDE_, and the name of the flag in capitals, with
// underscores. A variable that is empty counts as not set. An argument wins over the environment. Durations may have
// days. A flag with the tag renamed:"old" also goes by its old name. The help texts may use the variables. The
// error is [ErrHelp] or a [*UsageError].
func Parse(grammar any, name, description string, variables map[string]string, args []string, stdout, stderr io.Writer) (Parsed, error) {
	helped := false
	vars := kong.Vars{"version": name + " " + ThisBuild().String()}
	maps.Copy(vars, variables)
	parser, err := kong.New(grammar,
		kong.Name(name),
		kong.Description(description),
		kong.DefaultEnvars(prefix),
		kong.PostBuild(func(parser *kong.Kong) error {
			if slices.Contains(args, "--help") {
				return acceptRenamed(parser, false) // Help names all variables, by their new names.
			}
			return errors.Join(acceptRenamed(parser, true), forgetEmpty(parser))
		}),
		mapper(parseDuration),
		mapper(parseLevel),
		vars,
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
	)
	if err != nil {
		return Parsed{}, err
	}
	parsed, err := parser.Parse(args)
	if helped {
		return Parsed{}, ErrHelp
	}
	if err != nil {
		return Parsed{}, &UsageError{Err: err}
	}
	return Parsed{Command: parsed.Command(), Renamed: renamed(parser, args)}, nil
}

// forgetEmpty takes environment variables that are empty from their flags: kong would parse them.
func forgetEmpty(parser *kong.Kong) error {
	return visitFlags(parser, func(flag *kong.Flag) {
		flag.Tag.Envs = slices.DeleteFunc(flag.Tag.Envs, func(name string) bool {
			value, set := os.LookupEnv(name)
			return set && value == ""
		})
	})
}

// Main runs a command until it is done, or SIGINT or SIGTERM ends its context; a second signal ends
// the process at once. It reports an error on stderr, in one line, and returns the exit code.
func Main(name string, run func(ctx context.Context, args []string, stdout, stderr io.Writer) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
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

// reportTimeout is how long Report waits for a pipe that nobody reads.
const reportTimeout = time.Second

// Report writes the error of the command with a name, in one line. If stderr takes nothing, it gives up: that must not keep the
// process from its end.
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
