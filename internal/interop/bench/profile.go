package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/routeguide/internal/process"
)

// profile writes a CPU profile of each of our servers in each mode to a folder.
func profile(contestants []*contestant, folder string, length time.Duration, options *options) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for number, mode := range modes {
		if mode.ahead == 0 && !mode.live || !strings.Contains(mode.name, options.only) {
			continue
		}
		for _, contestant := range contestants {
			if !contestant.ours || !contestant.modes(mode) {
				continue
			}
			file := filepath.Join(folder, fmt.Sprintf("%d-%s.pprof", number, strings.ReplaceAll(strings.TrimPrefix(contestant.name, "ours, "), "/", "_")))
			profile := contestant.profile
			if mode.live {
				profile = contestant.profileLive
			}
			if err := profile(mode, length, file, options); err != nil {
				return fmt.Errorf("%s, %s: %w", mode.name, contestant.name, err)
			}
			fmt.Printf("%s: %s, %s\n", file, contestant.name, mode.name)
		}
	}
	return nil
}

// mergedProfile writes a CPU profile, merged from those of our servers in all modes, to a file.
func mergedProfile(contestants []*contestant, folder, file string, options *options) error {
	profiles := filepath.Join(folder, "profiles")
	if err := profile(contestants, profiles, 5*time.Second, options); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(profiles, "*.pprof"))
	if err != nil {
		return err
	}
	var merged, stderr bytes.Buffer
	command := exec.Command("go", append([]string{"tool", "pprof", "-proto"}, files...)...)
	command.Stdout, command.Stderr = &merged, &stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("merge profiles: %w\n%s", err, stderr.Bytes())
	}
	return os.WriteFile(file, merged.Bytes(), 0o644)
}

func (c *contestant) profile(mode mode, length time.Duration, file string, options *options) error {
	server, err := process.Start(c.program, append(c.args, "--admin", "127.0.0.1:0")...)
	if err != nil {
		return err
	}
	defer server.Kill()
	admin, err := server.Await(`admin=(\S+)`)
	if err != nil {
		return err
	}
	listen, err := server.Await(`listen=(\S+)`)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), length+time.Minute)
	defer cancel()
	load, err := newClients(ctx, listen[1], mode, options)
	if err != nil {
		return err
	}
	defer load.connections.close()
	if err := load.warmUp(ctx); err != nil {
		return err
	}
	loaded := make(chan error, 1)
	go func() {
		_, err := load.run(ctx, length+time.Second)
		loaded <- err
	}()
	err = download(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%.0f", admin[1], length.Seconds()), file)
	return errors.Join(err, <-loaded)
}

// profileLive measures a round of live notes, and writes a profile of the part that is measured.
func (c *contestant) profileLive(mode mode, _ time.Duration, file string, options *options) error {
	profiled := *c
	profiled.args = append(slices.Clone(c.args), "--admin", "127.0.0.1:0")
	profiled.profileFile = file
	_, err := mode.round(&profiled, mode, options)
	return err
}

// download writes the response of url to a file.
func download(ctx context.Context, url, file string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, response.Status, body)
	}
	return os.WriteFile(file, body, 0o644)
}
