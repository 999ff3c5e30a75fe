package browser

import (
	"context"
	"sync"
	"testing"
	"time"

	"example.com/routeguide/gen/routeguide"
)

// With 20,000 locations in view, and 100 notes a second that come, the map is dragged about. In the end it shows all locations. The long tasks
// meanwhile, which a user would feel, are reported.
func TestPanningManyLocations(t *testing.T) {
	t.Parallel()
	const places = 20_000 // the server's limit of a snapshot, by default
	southWest, northEast := place{40.2, -75}, place{41, -73.4}
	s := startServer(t)
	s.fill(t, places, southWest, northEast)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.await(`document.querySelector('#map').dataset.locations === String(args[0])`, places)
	p.awaitStill()
	p.script(`
		window.longTasks = []
		new PerformanceObserver((list) => {
			for (const { startTime, duration } of list.getEntries()) {
				window.longTasks.push({ startTime, duration })
			}
		}).observe({ entryTypes: ['longtask'] })
		window.frames = 0
		window.first = performance.now()
		const frame = () => { window.frameCount = (window.frameCount ?? 0) + 1; requestAnimationFrame(frame) }
		frame()
	`)

	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer stop()
	left := 0
	others.Go(func() {
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for ; ctx.Err() == nil; left++ {
			<-pace.C
			note := &routeguide.RouteNote{Location: nth(left*7919%places, places, southWest, northEast).point(), Message: "a note that comes"}
			if _, err := s.client.Leave(t.Context(), note); err != nil {
				t.Error(err)
				return
			}
		}
	})
	x, y := p.box("#map").center()
	const radius = 150
	for range 3 {
		p.drag(x, y, x-radius, y-radius)
		p.drag(x, y, x+radius, y)
		p.drag(x, y, x, y+radius)
	}
	stop()
	others.Wait()
	p.awaitStill()
	type tasks struct {
		Number  int     `json:"number"`
		Longest float64 `json:"longest"`
		Sum     float64 `json:"sum"`
		Frames  float64 `json:"frames"`
		Seconds float64 `json:"seconds"`
	}
	long := evaluate[tasks](p, `(() => {
		const durations = window.longTasks.map(({ duration }) => duration)
		const seconds = (performance.now() - window.first) / 1000
		return { number: durations.length, longest: Math.max(0, ...durations), sum: durations.reduce((a, b) => a + b, 0),
			frames: window.frameCount, seconds }
	})()`)
	t.Logf("%d locations, %d notes in %.1f s of panning: %d long tasks (50 ms or more), the longest of %.0f ms, %.0f ms in all; %.0f frames/s",
		places, left, long.Seconds, long.Number, long.Longest, long.Sum, long.Frames/long.Seconds)

	// Back to where all of them are.
	p.editURL(newYork)
	p.await(`document.querySelector('#map').dataset.locations === String(args[0])`, places)
	p.awaitLive()
}
