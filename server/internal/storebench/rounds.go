package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"example.com/routeguide/internal/measure"
	"example.com/routeguide/server/internal/notes/pebblestore"
)

// compare measures the stores in alternating rounds. Pebble is the store that has grown, if there is one.
func (b *bench) compare(ctx context.Context, grown *pebblestore.Store) error {
	reference, contestants, release, err := b.contestants(grown)
	if err != nil {
		return err
	}
	defer release()
	for round := range b.Rounds {
		for _, contestant := range contestants {
			result, err := b.round(ctx, contestant, round)
			if err != nil {
				return fmt.Errorf("%s: %w", contestant.name, err)
			}
			contestant.results = append(contestant.results, result)
		}
	}
	table := tabwriter.NewWriter(b.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%d chats, %d notes ahead, %s; %d alternating rounds of %v: median (min, max)\n", b.Chats, window, b.workload(), b.Rounds, b.Round)
	fmt.Fprintln(table, "store\tnotes/s\tagainst memory\tnotes a reply\tCPU, us a note\tresident, MiB\tanonymous, MiB\tone at a time, us\tagainst memory")
	for _, contestant := range contestants {
		figures := func(figure func(*result) float64) []float64 { return column(contestant.results, figure) }
		against := func(figure func(*result) float64) string {
			return measure.Ratios(figures(figure), column(reference.results, figure))
		}
		latency := func(r *result) float64 { return r.latency }
		fmt.Fprintf(table, "%s\t%s\t%s\t%.1f\t%s\t%s\t%s\t%s\t%s\n", contestant.name,
			measure.Spread("%.0f", figures((*result).rate)), against((*result).rate),
			measure.Median(figures(func(r *result) float64 { return float64(r.read) / float64(r.notes) })),
			measure.Spread("%.2f", figures((*result).cost)),
			measure.Spread("%.0f", figures(func(r *result) float64 { return mebibytes(r.resident) })),
			measure.Spread("%.0f", figures(func(r *result) float64 { return mebibytes(r.anonymous) })),
			measure.Spread("%.1f", figures(latency)), against(latency))
	}
	return table.Flush()
}

// round measures a store once.
func (b *bench) round(ctx context.Context, contestant *contestant, round int) (result, error) {
	store, err := contestant.open(round)
	if err != nil {
		return result{}, err
	}
	freeMemory()
	timeout, cancel := context.WithTimeout(ctx, b.Round)
	defer cancel()
	result, err := b.measure(timeout, store, unlimited, contestant.pids)
	if err == nil {
		result.latency, err = b.writeAlone(ctx, store, b.Round/4)
	}
	return result, errors.Join(err, store.Close(), ctx.Err())
}

// workload describes where notes are left.
func (b *bench) workload() string {
	text := "a new location for each note"
	switch {
	case b.Clustered && b.Locations == 0:
		text = "a million locations, clustered"
	case b.Clustered:
		text = fmt.Sprintf("%d locations, clustered", b.Locations)
	case b.Locations > 0:
		text = fmt.Sprintf("%d locations", b.Locations)
	}
	if b.History > 0 {
		text += fmt.Sprintf(", replies of at most %d notes", b.History)
	}
	if b.Grow > 0 {
		text += fmt.Sprintf(", pebble grown to %d notes", b.Grow)
	}
	return fmt.Sprintf("%s (seed %d)", text, b.Seed)
}
