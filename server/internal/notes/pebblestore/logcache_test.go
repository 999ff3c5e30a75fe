package pebblestore

import (
	"math/rand/v2"
	"slices"
	"testing"

	"example.com/routeguide/server/internal/notes"
)

// checkSize fails if the cache is larger than promised, or does not know its size.
func checkSize(t *testing.T, cache *logCache) {
	t.Helper()
	total := 0
	for _, log := range cache.logs {
		total += log.bytes()
	}
	if cache.bytes != total || total > logCacheBytes {
		t.Fatalf("the cache counts %d bytes, has %d, and may have %d", cache.bytes, total, logCacheBytes)
	}
}

// The cache agrees with whole logs, and reads a log when it has no entry, as the committer does.
func TestLogCacheAgreesWithSlices(t *testing.T) {
	t.Parallel()
	const largest = 200 << 10
	shared := make([]byte, largest)
	random := rand.New(rand.NewPCG(1, 2))
	cache := newLogCache()
	logs := make(map[uint64][]notes.Note)
	last := notes.Position(0)
	hits, evicted := 0, 0
	for step := range 25_000 {
		z := random.Uint64N(500)
		whole := logs[z]
		switch random.IntN(10) {
		case 0: // Forget
			logs[z] = slices.Clone(whole[random.IntN(len(whole)+1):])
			cache.remove(z)
		case 1, 2, 3, 4: // Append
			known, cached := cache.length(z)
			if cached && (known == 0) != (len(whole) == 0) {
				t.Fatalf("a log of %d notes has %d", len(whole), known)
			}
			if !cached {
				evicted++
				start := len(whole)
				for size := 0; start > 0 && size < cachedLogBytes; size += len(whole[start].Encoded) {
					start--
				}
				log := &cachedLog{partial: start > 0}
				for _, note := range whole[start:] {
					log.add(note)
				}
				cache.set(z, log)
			}
			last++
			note := notes.Note{Position: last, ID: "id", Encoded: shared[:1+random.IntN([]int{10, 1000, 6000, largest}[random.IntN(4)])]}
			logs[z] = append(whole, note)
			cache.add(z, note)
		default:
			span := notes.Span{After: notes.Position(random.Uint64N(uint64(last + 1))), Through: notes.Position(random.Uint64N(uint64(last + 2)))}
			switch random.IntN(3) {
			case 0:
				span = notes.Span{Through: span.Through, Newest: 1 + random.IntN(5)}
			case 1:
				span.Through = notes.Everything.Through
			}
			got, ok := cache.read(nil, z, span)
			if !ok {
				continue
			}
			hits++
			want := span.Of(whole)
			if want = want[:min(len(want), chunkNotes)]; !slices.EqualFunc(got, want, func(a, b notes.Note) bool { return a.Position == b.Position }) {
				t.Fatalf("%v of a log has %d notes, want %d", span, len(got), len(want))
			}
		}
		if step%100 == 0 {
			checkSize(t, cache)
		}
	}
	if hits < 1000 || evicted < 1000 {
		t.Errorf("%d hits and %d evicted logs are too few to say anything", hits, evicted)
	}
}

// The logs of a fixed set of locations, all of which are in the cache, grow beyond its size.
func TestLogCacheIsBoundedWhileLogsGrow(t *testing.T) {
	t.Parallel()
	encoded := make([]byte, 1000)
	cache := newLogCache()
	const locations = 5_000
	for z := range uint64(locations) {
		cache.set(z, &cachedLog{})
	}
	for i := range notes.Position(25) {
		for z := range uint64(locations) {
			cache.add(z, notes.Note{Position: i*locations + notes.Position(z) + 1, Encoded: encoded})
		}
		checkSize(t, cache)
	}
	if len(cache.logs) == locations {
		t.Error("nothing was evicted")
	}
}

// A location that gets a note now and then outlives thousands that get none.
func TestLogCacheEvictsTheLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	encoded := make([]byte, 1000)
	cache := newLogCache()
	const size, used = 80_000, 100 // The cache has room for fewer than size logs.
	last := notes.Position(0)
	add := func(z uint64) {
		last++
		cache.add(z, notes.Note{Position: last, Encoded: encoded})
	}
	for z := range uint64(2 * size) {
		cache.set(z, &cachedLog{})
		add(z)
		if z%(size/8) == 0 {
			for z := range uint64(used) {
				add(z)
			}
		}
	}
	kept := 0
	for z := range uint64(used) {
		if _, cached := cache.length(z); cached {
			kept++
		}
	}
	if kept < used*9/10 {
		t.Errorf("%d of %d logs that were used are left", kept, used)
	}
}

// As long as reads ask for a number of the newest notes, a log that grows keeps these for replies that lag, and little more.
func TestLogCacheKeepsTheNewestForLateReplies(t *testing.T) {
	t.Parallel()
	const newest, others = 10, 64
	cache := newLogCache()
	cache.read(nil, 0, notes.Span{Newest: newest})
	cache.set(0, &cachedLog{})
	last := notes.Position(0)
	check := func(through notes.Position) {
		if found, ok := cache.read(nil, 0, notes.Span{Through: through, Newest: newest}); !ok || len(found) != newest {
			t.Fatalf("the cache has %d notes through %d of %d, want %d", len(found), through, last, newest)
		}
	}
	for range 3 * lateNotes / others {
		last++
		cache.add(0, notes.Note{Position: last, Encoded: []byte("note")})
		if last > 2*lateNotes {
			check(last - lateNotes)
		}
		last += others - 1 // notes elsewhere
	}
	for through := last - lateNotes; through <= last; through++ {
		check(through)
	}
	if kept, most := len(cache.logs[0].ends), (lateNotes/others+newest)*3/2; kept > most {
		t.Errorf("the log has %d notes, want at most %d", kept, most)
	}
}

// Without a number, logs are kept whole, but not without bounds.
func TestLogCacheBoundsALog(t *testing.T) {
	t.Parallel()
	cache := newLogCache()
	cache.set(0, &cachedLog{})
	encoded := make([]byte, 1000)
	for position := range notes.Position(10_000) {
		cache.add(0, notes.Note{Position: position + 1, Encoded: encoded})
		log := cache.logs[0]
		if size := log.bytes(); size > 2*longLogBytes {
			t.Fatalf("the log has %d bytes", size)
		}
		if size := int(position) * len(encoded); size < longLogBytes/2 && log.partial {
			t.Fatalf("the log has lost notes after %d bytes", size)
		}
	}
	if _, whole := cache.read(nil, 0, notes.Everything); whole {
		t.Error("the log has lost notes and is taken for whole")
	}
}
