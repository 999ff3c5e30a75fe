package browser

import (
	"context"
	"errors"
	"io"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"example.com/routeguide/gen/routeguide"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// fill leaves a note at each of many places, spread over a rectangle.
func (s *server) fill(t *testing.T, places int, southWest, northEast place) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	chat, err := s.client.RouteChat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var receiver sync.WaitGroup
	defer receiver.Wait()
	receiver.Go(func() {
		for received := 0; ; received++ {
			if _, err := chat.Receive(); err != nil {
				if !errors.Is(err, io.EOF) || received != places {
					t.Errorf("%d notes of %d were answered: %v", received, places, err)
				}
				return
			}
		}
	})
	for i := range places {
		if err := chat.Send(&routeguide.RouteNote{Location: nth(i, places, southWest, northEast).point(), Message: "note " + strconv.Itoa(i)}); err != nil {
			t.Error(err)
			break
		}
	}
	if err := chat.CloseRequest(); err != nil {
		t.Error(err)
	}
}

// nth returns one of many places that are spread evenly over a rectangle, the next one far from it: a Kronecker sequence.
func nth(i, places int, southWest, northEast place) place {
	const golden = 0.6180339887498949
	_, share := math.Modf(float64(i) * golden)
	return place{
		southWest.latitude + (northEast.latitude-southWest.latitude)*(float64(i)+0.5)/float64(places),
		southWest.longitude + (northEast.longitude-southWest.longitude)*share,
	}
}

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

// drag drags the map with the mouse, in steps as a hand does, and holds still before it lets go: the map then does not move on.
func (p *tab) drag(fromX, fromY, toX, toY float64) {
	p.t.Helper()
	const steps = 20
	actions := []chromedp.Action[chromedp.Void]{
		chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, fromX, fromY),
		chromedp.MouseEvent(input.DispatchMouseEventTypeMousePressed, fromX, fromY, chromedp.Button("left"), chromedp.ClickCount(1)),
	}
	for step := range steps {
		share := float64(step+1) / steps
		actions = append(actions, chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, fromX+(toX-fromX)*share, fromY+(toY-fromY)*share, chromedp.Button("left")))
	}
	actions = append(actions, chromedp.MouseEvent(input.DispatchMouseEventTypeMouseReleased, toX, toY, chromedp.Button("left"), chromedp.ClickCount(1)))
	p.do(actions...)
}
