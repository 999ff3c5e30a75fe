package notefile

import (
	"context"
	"math"
	"time"

	"example.com/routeguide/server/internal/notes"
)

// Stats are the statistics of a store.
type Stats struct {
	Notes     int `json:"notes"`
	Locations int `json:"locations"`
	// Bytes is the total size of the encoded notes.
	Bytes int64 `json:"bytes"`
	// Longest is the length of the longest log in notes, and LongestAt its location.
	Longest   int            `json:"longestLog"`
	LongestAt notes.Location `json:"longestLogAt"`
	// Oldest and Newest are the earliest and the latest time of a note; zero without notes.
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
}

// Count reads a whole store. Progress, unless it is nil, is called with the number of notes so far.
func Count(ctx context.Context, store notes.Store, progress func(notes int)) (Stats, error) {
	var stats Stats
	oldest, newest := int64(math.MaxInt64), int64(math.MinInt64)
	for location, err := range store.Locations(ctx, notes.World, nil) {
		if err != nil {
			return stats, err
		}
		length := 0
		for chunk, err := range store.Range(ctx, location, notes.Everything) {
			if err != nil {
				return stats, err
			}
			for _, note := range chunk {
				stats.Bytes += int64(len(note.Encoded))
				oldest, newest = min(oldest, note.Time), max(newest, note.Time)
			}
			length += len(chunk)
		}
		if length == 0 {
			continue // The log was forgotten meanwhile.
		}
		stats.Locations++
		stats.Notes += length
		if length > stats.Longest {
			stats.Longest, stats.LongestAt = length, location
		}
		if progress != nil {
			progress(stats.Notes)
		}
	}
	if stats.Notes > 0 {
		stats.Oldest, stats.Newest = time.Unix(0, oldest).UTC(), time.Unix(0, newest).UTC()
	}
	return stats, nil
}
