package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/internal/process"
)

const latencyName = "latency at a fixed rate"

// latency measures how long replies take at half of the rate that the reference reaches at most. Here the
// load is ours: it writes notes when they are due, and counts from then on.
func latency(contestants []*contestant, options *options, folder string) error {
	client, err := process.Build("../..", "example.com/routeguide/client", folder)
	if err != nil {
		return err
	}
	p50s := make(map[*contestant][]float64)
	p99s := make(map[*contestant][]float64)
	var tops []float64
	for range options.rounds {
		top, err := contestants[0].load(client, 0, options.length)
		if err != nil {
			return err
		}
		tops = append(tops, top.NotesPerSecond)
	}
	rate := measure.Median(tops) / 2
	for range options.rounds {
		for _, contestant := range contestants {
			if !contestant.answersNotes() {
				continue
			}
			result, err := contestant.load(client, rate, 2*options.length)
			if err != nil {
				return fmt.Errorf("%s: %w", contestant.name, err)
			}
			p50s[contestant] = append(p50s[contestant], result.Latency.P50)
			p99s[contestant] = append(p99s[contestant], result.Latency.P99)
		}
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "one at a time, 32 chats on 2 connections, %.0f notes/s are due, half of what grpc-go's server reaches; %d rounds of %v in turn\n", rate, options.rounds, 2*options.length)
	fmt.Fprintln(table, "server\tp50, ms\tratio\tp99, ms\tratio")
	for _, contestant := range contestants {
		if contestant.answersNotes() {
			fmt.Fprintf(table, "%s\t%.3f\t%s\t%.3f\t%s\n", contestant.name,
				measure.Median(p50s[contestant]), measure.Ratios(p50s[contestant], p50s[contestants[0]]),
				measure.Median(p99s[contestant]), measure.Ratios(p99s[contestant], p99s[contestants[0]]))
		}
	}
	return table.Flush()
}

// answersNotes returns whether the server is a RouteGuide server.
func (c *contestant) answersNotes() bool {
	return c.stock || c.ours
}

// loadResult is what of `client load --json` is used here.
type loadResult struct {
	NotesPerSecond float64
	Latency        struct {
		P50 float64 `json:"p50ms"`
		P99 float64 `json:"p99ms"`
	}
}

// load puts the load of our client on a fresh server; with the rate 0, as much as it takes.
func (c *contestant) load(client string, rate float64, length time.Duration) (result loadResult, err error) {
	server, address, err := c.start()
	if err != nil {
		return result, err
	}
	defer server.Kill()
	printed, err := process.Run(context.Background(), client, "load", "--addr", "http://"+address, "--mode", "one-at-a-time",
		"--connections", "2", "--chats", "32", "--note-bytes", fmt.Sprint(len(text)), "--rate", fmt.Sprint(rate), "--duration", fmt.Sprint(length), "--json")
	if err != nil {
		return result, err
	}
	return result, json.Unmarshal([]byte(printed), &result)
}
