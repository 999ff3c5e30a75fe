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

// latency measures the latency of replies at half of the maximum rate of the reference. The load generator is `client
// load`, in an open loop: latency counts from the due time of a note.
func latency(contestants []*contestant, options *options, folder string) error {
	client, err := process.Build("../..", "example.com/routeguide/client", folder)
	if err != nil {
		return err
	}
	p50s := make(map[*contestant][]float64)
	p99s := make(map[*contestant][]float64)
	var maxRates []float64
	for range options.rounds {
		result, err := contestants[0].load(client, 0, options.length)
		if err != nil {
			return err
		}
		maxRates = append(maxRates, result.NotesPerSecond)
	}
	rate := measure.Median(maxRates) / 2
	for range options.rounds {
		for _, contestant := range contestants {
			if !contestant.isRouteGuide() {
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
	fmt.Fprintf(table, "one at a time, 32 chats on 2 connections, open loop at %.0f notes/s, half of grpc-go's maximum; %d interleaved rounds of %v\n", rate, options.rounds, 2*options.length)
	fmt.Fprintln(table, "server\tp50, ms\tratio\tp99, ms\tratio")
	for _, contestant := range contestants {
		if contestant.isRouteGuide() {
			fmt.Fprintf(table, "%s\t%.3f\t%s\t%.3f\t%s\n", contestant.name,
				measure.Median(p50s[contestant]), measure.Ratios(p50s[contestant], p50s[contestants[0]]),
				measure.Median(p99s[contestant]), measure.Ratios(p99s[contestant], p99s[contestants[0]]))
		}
	}
	return table.Flush()
}

// isRouteGuide returns whether the server is a RouteGuide server, not an echo.
func (c *contestant) isRouteGuide() bool {
	return c.stock || c.ours
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
