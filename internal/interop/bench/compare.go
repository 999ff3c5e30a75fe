package main

import (
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"example.com/routeguide/internal/measure"
)

// compare measures the servers in a mode, in alternating rounds, and prints a table: of each figure, values, and ratios against
// the reference and the server of -against.
func compare(mode mode, contestants []*contestant, options *options) error {
	var measured, references []*contestant
	for _, contestant := range contestants {
		if !contestant.modes(mode) {
			continue
		}
		if len(measured) == 0 || contestant.against {
			references = append(references, contestant)
		}
		measured = append(measured, contestant)
	}
	if len(measured) == 0 {
		return nil
	}
	if len(measured) == 1 {
		references = nil
	}
	if mode.openLoop {
		if err := setRate(measured[0], mode, options); err != nil {
			return err
		}
	}
	rounds := options.rounds
	if mode.rounds > 0 {
		rounds = min(rounds, mode.rounds)
	}
	start := time.Now()
	values := make(map[*contestant][][]float64) // by figure and round
	for range rounds {
		options.seed++ // A store that keeps notes from round to round gets them at new locations.
		for _, contestant := range measured {
			figures, err := mode.round(contestant, mode, options)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", mode.name, contestant.name, err)
			}
			if values[contestant] == nil {
				values[contestant] = make([][]float64, len(figures))
			}
			for i, value := range figures {
				values[contestant][i] = append(values[contestant][i], value)
			}
		}
	}
	fmt.Printf("\n%s%s; %d alternating rounds, in %v; median (min, max)\n", mode.name, over(options), rounds, time.Since(start).Round(time.Second))
	if mode.openLoop {
		fmt.Printf("open loop: notes are due at %.0f notes/s, half of what %s reaches; latency counts from when a note was due\n", options.rate, measured[0].name)
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	header := []string{"server"}
	for _, figure := range mode.figures {
		header = append(header, figure.name)
		for _, reference := range references {
			header = append(header, "against "+reference.name)
		}
	}
	fmt.Fprintln(table, strings.Join(header, "\t"))
	for _, contestant := range measured {
		row := []string{contestant.name}
		for i, figure := range mode.figures {
			row = append(row, measure.Spread(figure.format, values[contestant][i]))
			for _, reference := range references {
				row = append(row, measure.Ratios(values[contestant][i], values[reference][i]))
			}
		}
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	return table.Flush()
}

func over(options *options) string {
	if options.tls {
		return ", over TLS"
	}
	return ""
}
