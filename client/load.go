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
	Addr        string        `default:"http://localhost:50051" placeholder:"URL" help:"Put the load on the server there (${default}): any server of the contract over gRPC. An https:// URL is called with TLS."`
	Mode        string        `default:"one-at-a-time" enum:"one-at-a-time,written-ahead,replay,idle" placeholder:"one-at-a-time|written-ahead|replay|idle" help:"How clients chat (${default}). One at a time: each chat writes a note once it has the reply to the one before. Written ahead: it writes --ahead notes before it has replies. Replay: one at a time, where each reply replays --history notes and those since. Idle: one note, and then silence."`
	Connections int           `default:"2" placeholder:"N" help:"Open this many connections (${default})."`
	Chats       int           `default:"32" placeholder:"N" help:"Hold this many chats, spread over the connections (${default})."`
	Duration    time.Duration `default:"10s" placeholder:"DURATION" help:"Write notes for this long (${default})."`
	Notes       int64         `default:"0" placeholder:"N" help:"Write no more notes than this. 0, the default, is no bound."`
	Rate        float64       `default:"0" placeholder:"N" help:"Write this many notes a second in all, whether replies have come or not; latency then counts from when a note was due. 0, the default: as fast as replies come."`
	Ahead       int           `default:"500" placeholder:"N" help:"With written-ahead: notes of a chat that wait for replies (${default})."`
	History     int           `default:"300" placeholder:"N" help:"With replay: notes at each location before the time begins (${default})."`
	Locations   int           `default:"0" placeholder:"N" help:"Leave notes at this many locations. 0, the default, is a new location for each note, or one for each chat with replay."`
	NoteBytes   int           `default:"29" placeholder:"N" help:"Write notes with this much text (${default}; 24 at least)."`
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
		NoteBytes:   f.NoteBytes,
		Rate:        f.Rate,
		Duration:    f.Duration,
		Notes:       f.Notes,
	}, nil
}

// hostPort returns what to dial for a URL, and whether to speak TLS there.
func hostPort(addr string) (address string, secure bool, err error) {
	parsed, err := url.Parse(addr)
	if err != nil || parsed.Hostname() == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
		return "", false, fmt.Errorf("%q is not the URL of a server: want http://host:port or https://host:port", addr)
	}
	port := parsed.Port()
	if port == "" {
		port = parsed.Scheme // Its name is that of its port.
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
	options.Show = func(now load.Progress) {
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
		return fmt.Errorf("%d of %d chats did not end well, the first one with: %s", result.Errors, result.Chats, result.FirstError)
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
	rate := "as fast as replies come"
	if result.Rate > 0 {
		rate = fmt.Sprintf("%g notes/s are due", result.Rate)
	}
	_, err := fmt.Fprintf(table, `load	%s, %d chats on %d connections to %s, %s
time	%.2f s
notes	%d written, %d answered, %d received: %.0f notes/s
latency	p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, max %.3f ms
bytes	%d sent, %d received
errors	%d
`,
		result.Mode, result.Chats, result.Connections, result.Address, rate,
		result.Seconds,
		result.NotesSent, result.Replies, result.NotesReceived, result.NotesPerSecond,
		result.Latency.P50, result.Latency.P99, result.Latency.P999, result.Latency.Max,
		result.BytesSent, result.BytesReceived,
		result.Errors)
	return errors.Join(err, table.Flush())
}
