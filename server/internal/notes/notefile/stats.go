package notefile

import (
	"context"
	"math"
	"time"

	"example.com/routeguide/server/internal/notes"
)

// Stats is what there is to count in a store.
type Stats struct {
	Notes     int `json:"notes"`
	Locations int `json:"locations"`
	// Bytes is the size of the encoded notes.
	Bytes int64 `json:"bytes"`
	// Longest is how many notes the longest log has, and LongestAt where that is.
	Longest   int            `json:"longestLog"`
	LongestAt notes.Location `json:"longestLogAt"`
	// Oldest and Newest are the times of the first and the last note; zero without notes.
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
}

// Count counts what is in a store. Progress, unless it is nil, is called with the number of notes so
// far.
func Count(ctx context.Context, store notes.Store, progress func(notes int)) (Stats, error) {
	var stats Stats
	oldest, newest := int64(math.MaxInt64), int64(math.MinInt64)
	for at, err := range store.Locations(ctx) {
		if err != nil {
			return stats, err
		}
		length := 0
		for chunk, err := range store.Range(ctx, at, notes.Everything) {
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
			continue // It was all forgotten meanwhile.
		}
		stats.Locations++
		stats.Notes += length
		if length > stats.Longest {
			stats.Longest, stats.LongestAt = length, at
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
