package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"text/tabwriter"
	"time"

	"example.com/routeguide/client/internal/load"
	"example.com/routeguide/internal/command"
)

type loadFlags struct {
	Addr        string        `default:"http://localhost:50051" placeholder:"URL" help:"URL of the server (${default}): any server of the contract over gRPC. https:// means TLS."`
	Mode        string        `default:"one-at-a-time" enum:"one-at-a-time,written-ahead,replay,idle" placeholder:"one-at-a-time|written-ahead|replay|idle" help:"Traffic pattern (${default}). one-at-a-time: each chat has one note in flight. written-ahead: each chat has --ahead notes in flight. replay: one at a time, and each reply has --history notes and those since. idle: one note, and then silence."`
	Connections int           `default:"2" placeholder:"N" help:"Number of connections (${default})."`
	Chats       int           `default:"32" placeholder:"N" help:"Number of chats, spread over the connections (${default})."`
	Duration    time.Duration `default:"10s" placeholder:"DURATION" help:"Length of the measurement (${default})."`
	Notes       int64         `default:"0" placeholder:"N" help:"Stop after this many notes. 0, the default: no limit."`
	Rate        float64       `default:"0" placeholder:"N" help:"Notes per second in total, sent whether replies have arrived or not (open loop); latency counts from the time a note was due. 0, the default: the next note follows the reply (closed loop)."`
	Ahead       int           `default:"500" placeholder:"N" help:"With written-ahead: notes in flight on each chat (${default})."`
	History     int           `default:"300" placeholder:"N" help:"With replay: notes at each location before the measurement (${default})."`
	Locations   int           `default:"0" placeholder:"N" help:"Number of locations, chosen at random. 0, the default: a new location for each note, one for each chat with replay, or a million with --clustered."`
	Clustered   bool          `help:"Leave most notes at few locations in 20 cities (Zipf's law), as people do, instead of uniformly at random. Where notes share locations, replies have all notes there, unless the server has --history."`
	Seed        uint64        `default:"0" placeholder:"N" help:"Seed of the locations, to repeat a run. 0, the default, is a new one, which the result shows."`
	NoteBytes   int           `default:"29" placeholder:"N" help:"Length of a note's text in bytes (${default}; at least 24)."`
	JSON        bool          `help:"Print the result as JSON."`

	accessFlags `embed:""`
}

func (f *loadFlags) options() (load.Options, error) {
	config, err := f.config(f.Addr)
	if err != nil {
		return load.Options{}, err
	}
	address, secure, err := hostPort(f.Addr)
	if err != nil {
		return load.Options{}, command.Usagef("--addr: %w", err)
	}
	if secure && config.TLS == nil {
		config.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	} else if !secure {
		config.TLS = nil
	}
	return load.Options{
		Address:     address,
		TLS:         config.TLS,
		Token:       config.Token,
		Mode:        load.Mode(f.Mode),
		Connections: f.Connections,
		Chats:       f.Chats,
		Ahead:       f.Ahead,
		History:     f.History,
		Locations:   f.Locations,
		Clustered:   f.Clustered,
		Seed:        f.Seed,
		NoteBytes:   f.NoteBytes,
		Rate:        f.Rate,
		Duration:    f.Duration,
		Notes:       f.Notes,
	}, nil
}

// hostPort returns the host:port of a URL, and whether it needs TLS.
func hostPort(addr string) (address string, secure bool, err error) {
	parsed, err := url.Parse(addr)
	if err != nil || parsed.Hostname() == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return "", false, fmt.Errorf("%q is not a server URL: want http://host:port or https://host:port", addr)
	}
	port := parsed.Port()
	if port == "" {
		port = parsed.Scheme // The dialer resolves service names.
	}
	return net.JoinHostPort(parsed.Hostname(), port), parsed.Scheme == "https", nil
}

func (f *loadFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	options, err := f.options()
	if err != nil {
		return err
	}
	if err := options.Check(); err != nil {
		return command.Usagef("%w", err)
	}
	progress := command.NewProgress(stderr)
	options.OnProgress = func(now load.Progress) {
		progress.Showf("%3.0f s of %v: %.0f notes/s, %d errors", now.Elapsed.Seconds(), f.Duration, now.NotesPerSecond, now.Errors)
	}
	result, err := load.Run(ctx, options)
	progress.End()
	if err != nil {
		return err
	}
	if err := f.print(stdout, result); err != nil {
		return err
	}
	if result.Errors > 0 {
		return fmt.Errorf("%d of %d chats failed, the first one with: %s", result.Errors, result.Chats, result.FirstError)
	}
	return nil
}

func (f *loadFlags) print(stdout io.Writer, result *load.Result) error {
	if f.JSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(result)
	}
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	rate := "closed loop"
	if result.Rate > 0 {
		rate = fmt.Sprintf("open loop, %g notes/s", result.Rate)
	}
	_, err := fmt.Fprintf(table, `load	%s, %d chats on %d connections to %s, %s, seed %d
time	%.2f s
notes	%d written, %d answered, %d received: %.0f notes/s
latency	p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, max %.3f ms
bytes	%d sent, %d received
errors	%d
`,
		result.Mode, result.Chats, result.Connections, result.Address, rate, result.Seed,
		result.Seconds,
		result.NotesSent, result.Replies, result.NotesReceived, result.NotesPerSecond,
		result.Latency.P50, result.Latency.P99, result.Latency.P999, result.Latency.Max,
		result.BytesSent, result.BytesReceived,
		result.Errors)
	return errors.Join(err, table.Flush())
}
