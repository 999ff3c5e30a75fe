package browser

import (
	"slices"
	"testing"
	"time"
)

// The page shows the features of its view, over HTTP/1.1 in clear and over HTTP/2 with TLS.
func TestPageLoads(t *testing.T) {
	t.Parallel()
	t.Run("in clear", func(t *testing.T) {
		t.Parallel()
		checkLoad(t, startServer(t), "http/1.1")
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, "--tls-cert", certificate, "--tls-key", key)
		checkLoad(t, s, "h2")
	})
}

func checkLoad(t *testing.T, s *server, protocol string) {
	t.Helper()
	before := place{40.7127, -74.0059}
	s.leave(before, "left before the page was loaded")
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.awaitFeatures(s)
	p.await(`document.querySelector('#map').dataset.locations === '1'`)
	p.awaitOutlines()
	if at := p.marker(before); p.count(at) != 1 {
		t.Errorf("the page has no %s", at)
	}
	for _, mark := range []string{"features-drawn", "notes-current"} {
		p.await(`performance.getEntriesByName(args[0]).length === 1`, mark)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, request := range p.requests {
		if request.url.Scheme != "data" && request.status != 0 && request.protocol != protocol {
			t.Errorf("%s came over %q, want %q", request.url, request.protocol, protocol)
		}
	}
}

// The page is as fast as docs/map.md says: reported, not asserted. Other tests do not run meanwhile.
func TestTimeToFeatures(t *testing.T) {
	s := startServer(t)
	const loads = 5
	drawn := make([]time.Duration, loads)
	current := make([]time.Duration, loads)
	for load := range loads {
		p := openTab(t, s.url()+"/"+newYork.hash())
		for mark, times := range map[string][]time.Duration{"features-drawn": drawn, "notes-current": current} {
			p.await(`performance.getEntriesByName(args[0]).length === 1`, mark)
			milliseconds := evaluate[float64](p, `performance.getEntriesByName(args[0])[0].startTime`, mark)
			times[load] = time.Duration(milliseconds * float64(time.Millisecond)).Round(time.Millisecond)
		}
		p.awaitFeatures(s)
	}
	slices.Sort(drawn)
	slices.Sort(current)
	t.Logf("from the start of the navigation, median (least, greatest) of %d: features drawn after %v (%v, %v), notes current after %v (%v, %v)",
		loads, drawn[loads/2], drawn[0], drawn[loads-1], current[loads/2], current[0], current[loads-1])
}
