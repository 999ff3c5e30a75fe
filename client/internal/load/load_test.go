package load_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/routeguide/client/internal/load"
	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/internal/process"
)

// program is the path of the server's binary.
var program string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "load")
	if err == nil {
		program, err = process.Build(".", "example.com/routeguide/server", folder)
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if err := os.RemoveAll(folder); err != nil {
		panic(err)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		panic(err)
	}
	os.Exit(code)
}

func startServer(t *testing.T, args ...string) (server *process.Process, address string) {
	t.Helper()
	server, address, err := process.StartServer(program, append([]string{"--store", "memory:", "--max-text", "4MiB", "--max-message", "8MiB"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Kill(); err != nil {
			t.Error(err)
		}
	})
	return server, address
}

func options(address string) load.Options {
	return load.Options{
		Address: address, Mode: load.OneAtATime, Connections: 2, Chats: 6, Ahead: 100, History: 20,
		NoteBytes: load.MinNoteBytes, Duration: time.Minute, Notes: 3000,
	}
}

func TestRunOverTLSWithToken(t *testing.T) {
	t.Parallel()
	certificate, key := certtest.SelfSigned(t)
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, address := startServer(t, "--tls-cert", certificate, "--tls-key", key, "--tokens", tokens)
	pem, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	options := options(address)
	options.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	options.TLS.RootCAs.AppendCertsFromPEM(pem)
	options.Token = "0123456789abcdef"
	result, err := load.Run(t.Context(), options)
	if err != nil || result.Errors > 0 || result.Replies != options.Notes {
		t.Errorf("got %+v, %v", result, err)
	}
	options.Token = ""
	if result, err := load.Run(t.Context(), options); err != nil || result.Errors != int64(options.Chats) || !strings.Contains(result.FirstError, "16") {
		t.Errorf("without the token: got %+v, %v", result, err)
	}
	options.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if _, err := load.Run(t.Context(), options); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the CA: got %v", err)
	}
}

func TestRunGetsReplyToEveryNote(t *testing.T) {
	t.Parallel()
	_, address := startServer(t)
	for name, test := range map[string]struct {
		change   func(*load.Options)
		received func(notes int64) int64 // minimum number of notes in the replies
		notes    int64
	}{
		"one at a time":          {func(*load.Options) {}, func(notes int64) int64 { return notes }, 3000},
		"written ahead":          {func(o *load.Options) { o.Mode = load.WrittenAhead }, func(notes int64) int64 { return notes }, 3000},
		"long notes ahead":       {func(o *load.Options) { o.Mode, o.NoteBytes = load.WrittenAhead, 5000 }, func(notes int64) int64 { return notes }, 3000},
		"very long notes":        {func(o *load.Options) { o.NoteBytes, o.Notes = 300_000, 30 }, func(notes int64) int64 { return notes }, 30},
		"at few locations":       {func(o *load.Options) { o.Locations, o.Notes = 10, 500 }, func(notes int64) int64 { return notes * 20 }, 500},
		"replay":                 {func(o *load.Options) { o.Mode, o.Notes = load.Replay, 300 }, func(notes int64) int64 { return notes * 21 }, 300},
		"one history for all":    {func(o *load.Options) { o.Mode, o.Notes, o.Locations = load.Replay, 60, 1 }, func(notes int64) int64 { return notes * 21 }, 60},
		"at a rate":              {func(o *load.Options) { o.Rate, o.Notes = 5000, 1000 }, func(notes int64) int64 { return notes }, 1000},
		"a history at a rate":    {func(o *load.Options) { o.Mode, o.Rate, o.Notes = load.Replay, 500, 100 }, func(notes int64) int64 { return notes * 21 }, 100},
		"until the time is over": {func(o *load.Options) { o.Mode, o.Notes, o.Duration = load.Idle, 0, 50*time.Millisecond }, func(notes int64) int64 { return notes }, 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := options(address)
			test.change(&options)
			result, err := load.Run(t.Context(), options)
			if err != nil {
				t.Fatal(err)
			}
			if result.NotesSent != test.notes || result.Replies != test.notes || result.NotesReceived < test.received(test.notes) || result.Errors != 0 {
				t.Errorf("got %+v, want %d replies of %d notes or more in all", result, test.notes, test.received(test.notes))
			}
			if latency := result.Latency; latency.P50 <= 0 || latency.P50 > latency.P99 || latency.P99 > latency.P999 || latency.P999 > latency.Max {
				t.Errorf("%+v do not grow", latency)
			}
			if result.BytesSent < test.notes*load.MinNoteBytes || result.BytesReceived < result.NotesReceived*load.MinNoteBytes {
				t.Errorf("%d bytes were sent, %d received", result.BytesSent, result.BytesReceived)
			}
		})
	}
}

// With a rate, latency counts from the due time, also while the server stalls (no coordinated omission).
func TestRunLatencyCountsFromDueTime(t *testing.T) {
	t.Parallel()
	server, address := startServer(t)
	options := options(address)
	options.Rate, options.Notes = 1000, 1000
	const pause = 300 * time.Millisecond
	resumed := make(chan error, 1)
	go func() {
		time.Sleep(200 * time.Millisecond)
		err := server.Signal(syscall.SIGSTOP)
		time.Sleep(pause)
		resumed <- errors.Join(err, server.Signal(syscall.SIGCONT))
	}()
	result, err := load.Run(t.Context(), options)
	if err := errors.Join(err, <-resumed); err != nil {
		t.Fatal(err)
	}
	// About 300 of the 1000 notes were due during the pause, so a tenth waited for most of it.
	if result.Replies != 1000 || result.Latency.P99 < 200 {
		t.Errorf("with a pause of %v, got %+v", pause, result)
	}
}

func TestRunCountsErrors(t *testing.T) {
	t.Parallel()
	server, address := startServer(t)
	options := options(address)
	options.Notes = 0
	time.AfterFunc(200*time.Millisecond, func() { _ = server.Kill() })
	result, err := load.Run(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if result.Errors != int64(options.Chats) || !strings.Contains(result.FirstError, "connection") || result.Seconds > 30 {
		t.Errorf("got %+v after the server was killed", result)
	}
}

func TestRunEndsWithContext(t *testing.T) {
	t.Parallel()
	_, address := startServer(t)
	options := options(address)
	options.Notes = 0
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	result, err := load.Run(ctx, options)
	if err != nil || result.Errors != 0 || result.Replies == 0 {
		t.Errorf("got %+v, %v", result, err)
	}
}

func TestRunErrors(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	_, address := startServer(t)
	for text, change := range map[string]func(*load.Options){
		"does not speak HTTP/2 without TLS": func(o *load.Options) { o.Address = listener.Addr().String() },
		"connection refused":                func(o *load.Options) { o.Address = "127.0.0.1:1" },
		"missing port":                      func(o *load.Options) { o.Address = "localhost" },
		"use more connections":              func(o *load.Options) { o.Chats = 5000 },
		"is no mode":                        func(o *load.Options) { o.Mode = "busy" },
		"a chat for each":                   func(o *load.Options) { o.Connections = 7 },
		"bytes of text":                     func(o *load.Options) { o.NoteBytes = 3 },
		"want more than 0":                  func(o *load.Options) { o.Duration = 0 },
		"has no rate":                       func(o *load.Options) { o.Mode, o.Rate = load.WrittenAhead, 1 },
	} {
		options := options(address)
		change(&options)
		if _, err := load.Run(t.Context(), options); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
}
