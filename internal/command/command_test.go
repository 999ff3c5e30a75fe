package command_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"example.com/routeguide/internal/command"
)

// grammar has a flag of each type that the commands use, and one in a subcommand.
type grammar struct {
	Size    int           `default:"7"`
	Share   float64       `default:"0.5"`
	Switch  bool          ``
	Wait    time.Duration `renamed:"linger-for" default:"1s"`
	Name    string        `default:"somewhere"`
	Kind    string        `default:"a" enum:"a,b"`
	Keep    time.Duration `default:"1h"`
	Level   slog.Level    `default:"info"`
	Origins []string      ``
	Do      struct {
		More int `default:"3"`
	} `cmd:"" default:"withargs"`
}

func parse(args ...string) (grammar, error) {
	var flags grammar
	_, err := command.Parse(&flags, "test", "", nil, args, io.Discard, io.Discard)
	return flags, err
}

func TestParseIgnoresEmptyEnvironmentVariables(t *testing.T) {
	for _, name := range []string{"SIZE", "SHARE", "SWITCH", "NAME", "KIND", "KEEP", "LEVEL", "ORIGINS", "MORE"} {
		t.Setenv("ROUTEGUIDE_"+name, "")
	}
	flags, err := parse()
	if err != nil {
		t.Fatal(err)
	}
	if flags.Size != 7 || flags.Share != 0.5 || flags.Switch || flags.Name != "somewhere" || flags.Kind != "a" ||
		flags.Keep != time.Hour || flags.Level != slog.LevelInfo || len(flags.Origins) != 0 || flags.Do.More != 3 {
		t.Errorf("got %+v, want the defaults", flags)
	}
	// A variable with a value counts, and so does an empty argument.
	t.Setenv("ROUTEGUIDE_SIZE", "8")
	if flags, err := parse("--name="); err != nil || flags.Size != 8 || flags.Name != "" {
		t.Errorf("got %+v, %v", flags, err)
	}
	if _, err := parse("--keep="); err == nil {
		t.Error("an empty argument is accepted as a duration")
	}
	var help strings.Builder
	if _, err := command.Parse(&grammar{}, "test", "", nil, []string{"--help"}, &help, io.Discard); !errors.Is(err, command.ErrHelp) {
		t.Errorf("got %v, want help", err)
	}
	if !strings.Contains(help.String(), "ROUTEGUIDE_KEEP") {
		t.Errorf("help does not show an empty variable:\n%s", &help)
	}
}

func TestParseDurationsWithDays(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "0d": 0, "7d": 7 * day, "1d12h": 36 * time.Hour, "1d0.5s": day + 500*time.Millisecond, "90m": 90 * time.Minute,
		"-1d12h": -36 * time.Hour, "-1s": -time.Second, "1.5h": 90 * time.Minute, "65535d": 65535 * day,
	} {
		if flags, err := parse("--keep=" + text); err != nil || flags.Keep != want {
			t.Errorf("%q: got %v, %v, want %v", text, flags.Keep, err, want)
		}
	}
	for _, text := range []string{"7", "d", "d1h", "1h1d", "1d2d", "1.5d", "1d-1h", "1d+1h", "--1d", "-", "7D", "7 d", "1d1", "nand", "65536d", "65535d2000000h", "1w"} {
		_, err := parse("--keep=" + text)
		var usage *command.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), "--keep: ") || !strings.Contains(err.Error(), "is not a duration") {
			t.Errorf("%q: got %v, want a usage error", text, err)
		}
	}
	if flags, err := parse("--keep=" + time.Duration(math.MaxInt64).String()); err != nil || flags.Keep != math.MaxInt64 {
		t.Errorf("got %v, %v, want the longest duration", flags.Keep, err)
	}
}

func TestParseLogLevelsInAnyCase(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]slog.Level{
		"debug": slog.LevelDebug, "Debug": slog.LevelDebug, "INFO": slog.LevelInfo, "Warn": slog.LevelWarn,
		"warning": slog.LevelWarn, "WARNING": slog.LevelWarn, "Error": slog.LevelError, "info+2": slog.LevelInfo + 2,
	} {
		if flags, err := parse("--level=" + text); err != nil || flags.Level != want {
			t.Errorf("%q: got %v, %v, want %v", text, flags.Level, err, want)
		}
	}
	_, err := parse("--level=loud")
	var usage *command.UsageError
	if !errors.As(err, &usage) || !strings.Contains(err.Error(), "--level: want debug, info, warn (or warning) or error") {
		t.Errorf("got %v, want a usage error that lists the levels", err)
	}
}

func TestParseAcceptsRenamedFlags(t *testing.T) {
	for _, test := range []struct {
		variable string
		args     []string
		want     time.Duration
		renamed  string
	}{
		{"", nil, time.Second, "[]"},
		{"", []string{"--wait=2s"}, 2 * time.Second, "[]"},
		{"", []string{"--linger-for=2s"}, 2 * time.Second, "[--linger-for is called --wait now]"},
		{"", []string{"--linger-for", "2s"}, 2 * time.Second, "[--linger-for is called --wait now]"},
		{"3s", nil, 3 * time.Second, "[ROUTEGUIDE_LINGER_FOR is called ROUTEGUIDE_WAIT now]"},
		{"3s", []string{"--wait=2s"}, 2 * time.Second, "[ROUTEGUIDE_LINGER_FOR is called ROUTEGUIDE_WAIT now]"},
	} {
		t.Setenv("ROUTEGUIDE_LINGER_FOR", test.variable)
		var flags grammar
		parsed, err := command.Parse(&flags, "test", "", nil, test.args, io.Discard, io.Discard)
		if err != nil || flags.Wait != test.want || fmt.Sprint(parsed.Renamed) != test.renamed {
			t.Errorf("%q, %v: got %v, %v, %v, want %v, %s", test.variable, test.args, flags.Wait, parsed.Renamed, err, test.want, test.renamed)
		}
	}
	t.Setenv("ROUTEGUIDE_LINGER_FOR", "3s")
	t.Setenv("ROUTEGUIDE_WAIT", "4s")
	if flags, err := parse(); err != nil || flags.Wait != 4*time.Second {
		t.Errorf("both variables: got %v, %v, want the value of the new one", flags.Wait, err)
	}
	var help strings.Builder
	if _, err := command.Parse(&grammar{}, "test", "", nil, []string{"--help"}, &help, io.Discard); !errors.Is(err, command.ErrHelp) || strings.Contains(strings.ToLower(help.String()), "linger") {
		t.Errorf("got %v, and the old name in the help:\n%s", err, &help)
	}
}
