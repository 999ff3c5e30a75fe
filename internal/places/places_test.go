package places_test

import (
	"math"
	"testing"

	"example.com/routeguide/internal/places"
)

type location struct{ latitude, longitude int32 }

// count returns how often each location comes in some numbers.
func count(t *testing.T, generator places.Generator, numbers int64) map[location]int {
	t.Helper()
	counts := make(map[location]int)
	for number := range numbers {
		latitude, longitude := generator.At(number)
		if latitude < -900000000 || latitude > 900000000 || longitude < -1800000000 || longitude > 1800000000 {
			t.Fatalf("%+v: %d, %d is not on Earth", generator, latitude, longitude)
		}
		counts[location{latitude, longitude}]++
	}
	return counts
}

func TestGeneratorIsUniformAndNew(t *testing.T) {
	t.Parallel()
	const numbers = 100_000
	counts := count(t, places.Generator{Seed: 1}, numbers)
	if len(counts) != numbers {
		t.Errorf("%d numbers have %d locations, want a new one for each", numbers, len(counts))
	}
	north, ascending := 0, 0
	last := int32(math.MinInt32)
	for number := range int64(numbers) {
		latitude, _ := places.Generator{Seed: 1}.At(number)
		if latitude > 0 {
			north++
		}
		if latitude > last {
			ascending++
		}
		last = latitude
	}
	if north < numbers*49/100 || north > numbers*51/100 || ascending > numbers*51/100 {
		t.Errorf("%d of %d locations are in the north, and %d are north of the one before", north, numbers, ascending)
	}
}

func TestGeneratorHasCountLocations(t *testing.T) {
	t.Parallel()
	if counts := count(t, places.Generator{Seed: 1, Count: 100}, 10_000); len(counts) != 100 {
		t.Errorf("got %d locations, want 100", len(counts))
	}
	if counts := count(t, places.Generator{Seed: 1, Count: 100, Clustered: true}, 100_000); len(counts) != 100 {
		t.Errorf("got %d clustered locations, want 100", len(counts))
	}
}

// The first location of a thousand comes about as often as Zipf's law has it: 1/ln(1001) of the time, for the approximation by a power.
func TestGeneratorIsClustered(t *testing.T) {
	t.Parallel()
	const numbers = 200_000
	counts := count(t, places.Generator{Seed: 1, Count: 1000, Clustered: true}, numbers)
	most := 0
	for _, count := range counts {
		most = max(most, count)
	}
	if want := numbers * math.Ln2 / math.Log(1001); float64(most) < 0.9*want || float64(most) > 1.1*want {
		t.Errorf("the most frequent location comes %d times, want %.0f", most, want)
	}
}

func TestGeneratorFollowsSeed(t *testing.T) {
	t.Parallel()
	for _, clustered := range []bool{false, true} {
		a, again, other := places.Generator{Seed: 1, Clustered: clustered}, places.Generator{Seed: 1, Clustered: clustered}, places.Generator{Seed: 2, Clustered: clustered}
		same := 0
		for number := range int64(1000) {
			latitude, longitude := a.At(number)
			if x, y := again.At(number); x != latitude || y != longitude {
				t.Fatalf("number %d has two locations with one seed", number)
			}
			if x, y := other.At(number); x == latitude && y == longitude {
				same++
			}
		}
		if same > 0 {
			t.Errorf("%d locations are the same with another seed", same)
		}
	}
}

func TestGeneratorTextsDiffer(t *testing.T) {
	t.Parallel()
	generator := places.Generator{Seed: 1}
	texts := make(map[string]bool)
	for number := range int64(1000) {
		text := generator.Text(number, 29)
		if len(text) != 29 || text != generator.Text(number, 29) {
			t.Fatalf("number %d has the texts %q and %q, want one of 29 bytes", number, text, generator.Text(number, 29))
		}
		texts[text] = true
	}
	// Two of a thousand windows of the corpus may be the same one.
	if len(texts) < 980 {
		t.Errorf("1000 numbers have %d texts", len(texts))
	}
	if text := generator.Text(1, 1<<20); len(text) != 64<<10 {
		t.Errorf("the longest text has %d bytes", len(text))
	}
}

func BenchmarkGenerator(b *testing.B) {
	for _, clustered := range []bool{false, true} {
		generator := places.Generator{Clustered: clustered}
		b.Run(map[bool]string{false: "uniform", true: "clustered"}[clustered], func(b *testing.B) {
			for number := range b.N {
				generator.At(int64(number))
			}
		})
	}
}
