package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/process"
)

var latency = []figure{{"p50, ms", "%.3f"}, {"p99, ms", "%.3f"}}

// latencyRound measures a fresh server under `client load`, in an open loop.
func latencyRound(c *contestant, mode mode, options *options) ([]float64, error) {
	result, err := c.load(mode, options.rate, 2*options.length, options)
	return []float64{result.Latency.P50, result.Latency.P99}, err
}

// setRate sets the rate of an open loop: half of what a server reaches in a closed loop.
func setRate(c *contestant, mode mode, options *options) error {
	var reached []float64
	for range options.rounds {
		result, err := c.load(mode, 0, options.length, options)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", mode.name, c.name, err)
		}
		reached = append(reached, result.NotesPerSecond)
	}
	options.rate = measure.Median(reached) / 2
	return nil
}

// loadResult has the used fields of `client load --json`.
type loadResult struct {
	NotesPerSecond float64
	Latency        struct {
		P50 float64 `json:"p50ms"`
		P99 float64 `json:"p99ms"`
	}
}

// load runs `client load` against a fresh server. Rate is in notes per second; 0 is a closed loop.
func (c *contestant) load(mode mode, rate float64, length time.Duration, options *options) (result loadResult, err error) {
	server, address, err := c.start()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, c.end(server)) }()
	printed, err := runLoad(options, address, "--mode", "one-at-a-time", "--json", "--connections", fmt.Sprint(mode.connections),
		"--chats", fmt.Sprint(mode.chats), "--rate", fmt.Sprint(rate), "--duration", fmt.Sprint(length))
	if err != nil {
		return result, err
	}
	return result, json.Unmarshal([]byte(printed), &result)
}

// runLoad runs `client load` against an address, and returns what it printed.
func runLoad(options *options, address string, args ...string) (printed string, err error) {
	target := []string{"--addr", "http://" + address}
	if options.tls {
		target = []string{"--addr", "https://" + address, "--ca", options.certificate}
	}
	command := append([]string{"load", "--seed", fmt.Sprint(options.seed), "--note-bytes", fmt.Sprint(textBytes)}, target...)
	return process.Run(context.Background(), options.client, append(command, args...)...)
}
