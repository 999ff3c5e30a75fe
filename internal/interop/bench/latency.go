package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"example.com/routeguide/client/load"
	"example.com/routeguide/internal/measure"
)

const latencyName = "latency at a fixed rate"

// latency measures how long replies take at half of the rate that the reference reaches at most. Here the
// load is ours: it writes notes when they are due, and counts from then on.
func latency(contestants []*contestant, options *options) error {
	p50s := make(map[*contestant][]float64)
	p99s := make(map[*contestant][]float64)
	var tops []float64
	for range options.rounds {
		top, err := contestants[0].load(0, options.length)
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
			result, err := contestant.load(rate, 2*options.length)
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

// load puts our load on a fresh server; with the rate 0, as much as it takes.
func (c *contestant) load(rate float64, length time.Duration) (*load.Result, error) {
	server, address, err := c.start()
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	result, err := load.Run(context.Background(), load.Options{
		Address: address, Mode: load.OneAtATime, Connections: 2, Chats: 32,
		NoteBytes: len(text), Rate: rate, Duration: length,
	})
	if err == nil && result.Errors > 0 {
		err = fmt.Errorf("%d chats failed: %s", result.Errors, result.FirstError)
	}
	return result, err
}
