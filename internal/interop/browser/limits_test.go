package browser

import (
	"testing"
)

// A view with more locations than the server sends is too large, and one that is zoomed in is not.
func TestTooManyLocations(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--max-snapshot", "10")
	for i := range 11 {
		s.leave(place{40 + float64(i)/10, -74}, "one of many")
	}
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitConnection("too-many")
	p.awaitFeatures(s)
	p.await(`/zoom in/i.test(document.querySelector('#status').textContent)`)
	p.picture()
	for p.view().zoom < 11 {
		before := evaluate[string](p, `location.hash`)
		p.click(".leaflet-control-zoom-in")
		p.await(`location.hash !== args[0]`, before)
	}
	p.awaitLive()
	p.await(`Number(document.querySelector('#map').dataset.locations) > 0`)
}

// A page for which the server has no room tries again, and does not ask the user to zoom in: it is live once there is room.
func TestTooManyFollowers(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--max-followers", "1")
	one := openTab(t, s.url()+"/"+newYork.hash())
	one.awaitLive()
	two := openTab(t, s.url()+"/"+newYork.hash())
	two.awaitConnection("reconnecting")
	one.close()
	two.awaitLive()
}
