package browser

import (
	"context"
	"math"
	"slices"
	"testing"

	"example.com/routeguide/gen/routeguide"
	"github.com/chromedp/chromedp/kb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

var (
	harbour = place{40.6892, -74.0445}
	// atSea is a place without features around it, which newYork shows.
	atSea = place{40.1, -73.3}
)

// watch counts, from now on, how often elements come to match a selector. It sees also what passes between two looks at the page.
func (p *tab) watch(selector string) {
	p.t.Helper()
	p.script(`
		window.watched ??= {};
		window.watched[args[0]] = 0;
		const matching = new Set(document.querySelectorAll(args[0]));
		new MutationObserver(() => {
			for (const element of document.querySelectorAll(args[0])) {
				if (!matching.has(element)) {
					matching.add(element);
					window.watched[args[0]]++;
				}
			}
			for (const element of matching) {
				if (!element.matches(args[0]) || !element.isConnected) {
					matching.delete(element);
				}
			}
		}).observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
	`, selector)
}

// awaitSeen waits until an element has come to match a selector since it was watched.
func (p *tab) awaitSeen(selector string) {
	p.t.Helper()
	p.await(`window.watched[args[0]] > 0`, selector)
}

// A note that others leave appears without a reload, is seen to arrive, and is announced to screen readers: by LeaveNote and by RouteChat.
// At the open place it comes to the top of the log, once.
func TestNoteOfOthersAppears(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	marker := p.marker(harbour)
	p.watch(marker + ".arrived")
	s.leave(harbour, "by LeaveNote")
	p.awaitSeen(marker + ".arrived")
	p.await(`/by LeaveNote/.test(document.querySelector('#announcements').textContent)`)
	p.await(`document.querySelector('#map').dataset.locations === '1'`)
	p.picture()
	p.await(`document.querySelector('.arrived') === null`)

	p.watch(marker + ".arrived")
	s.chat(harbour, "by RouteChat")
	p.awaitSeen(marker + ".arrived")
	p.await(`/by RouteChat/.test(document.querySelector('#announcements').textContent)`)

	p.click(marker)
	p.await(`document.querySelectorAll('#log > li').length === 2`)
	s.leave(harbour, "while it is open")
	p.await(`document.querySelectorAll('#log > li').length === 3`)
	if got, want := p.log(), []string{"while it is open", "by RouteChat", "by LeaveNote"}; !slices.Equal(got, want) {
		t.Errorf("the log is %q, want %q", got, want)
	}
	if sorted := evaluate[bool](p, `[...document.querySelectorAll('#log > li')].every((li, i, all) =>
		i === 0 || BigInt(all[i - 1].dataset.position) > BigInt(li.dataset.position))`); !sorted {
		t.Error("the log is not in descending order of positions")
	}
	for _, datetime := range evaluate[[]string](p, `[...document.querySelectorAll('#log time')].map((time) => time.dateTime)`) {
		if datetime == "" {
			t.Error("a note has no time")
		}
	}
}

// A click where nothing is opens a form there, and the note that is typed into it is kept exactly where the click was.
func TestClickLeavesNote(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.clickAt(atSea)
	p.write("typed after a click")
	checkPlace(t, s, p, "typed after a click", atSea)
}

// The whole way without a mouse: to the map, along it, to a place at its centre, to the form, and back to the place through its marker.
func TestKeyboardLeavesNote(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+view{zoom: 9, center: atSea}.hash())
	p.awaitLive()
	p.tabTo("#map")
	before := evaluate[string](p, `location.hash`)
	p.keys(kb.ArrowRight)
	p.await(`location.hash !== args[0]`, before)
	p.awaitStill()
	p.keys(kb.Enter)
	p.awaitFocus("#text")
	center := p.view().center
	p.keys("typed without a mouse")
	p.tabTo("#send")
	p.keys(kb.Enter)
	p.awaitLeft("typed without a mouse")
	checkPlace(t, s, p, "typed without a mouse", center)
	p.picture()

	p.tabTo("#close")
	p.keys(kb.Enter)
	p.await(`document.querySelector('#panel').checkVisibility() === false`)
	p.tabTo(".place")
	p.keys(kb.Enter)
	p.await(`document.querySelector('#log > li .text')?.textContent === 'typed without a mouse'`)
	p.keys(kb.Escape)
	p.await(`document.querySelector('#panel').checkVisibility() === false`)
	p.awaitFocus(".place")
}

// checkPlace fails the test unless a text was left once, at a place or in the pixels around it.
func checkPlace(t *testing.T, s *server, p *tab, text string, at place) {
	t.Helper()
	notes := s.notes(everywhere)
	if got := count(notes, text); got != 1 {
		t.Fatalf("%q was left %d times", text, got)
	}
	pixel := 360 / (256 * math.Exp2(p.view().zoom)) // degrees of longitude, which are more than those of latitude
	for _, note := range notes {
		left := place{float64(note.GetLocation().GetLatitude()) / 1e7, float64(note.GetLocation().GetLongitude()) / 1e7}
		if note.GetText() == text && (math.Abs(left.latitude-at.latitude) > 2*pixel || math.Abs(left.longitude-at.longitude) > 2*pixel) {
			t.Errorf("%q was left at %v, want %v", text, left, at)
		}
	}
	p.await(`document.querySelector('#map').dataset.locations === '1'`)
}

// A note that is left by a click on a marker comes to a client of grpc-go, which follows the place by RouteChat.
func TestClickReachesGRPCClient(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()

	connection, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	chat, err := connection.NewStream(metadata.AppendToOutgoingContext(ctx, "routeguide-follow", "true"),
		&grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/routeguide.RouteGuide/RouteChat")
	if err != nil {
		t.Fatal(err)
	}
	if err := chat.SendMsg(&routeguide.RouteNote{Location: harbour.point(), Message: "Anyone here?"}); err != nil {
		t.Fatal(err)
	}
	receive := func(want string) {
		t.Helper()
		var note routeguide.RouteNote
		if err := chat.RecvMsg(&note); err != nil {
			t.Fatal(err)
		}
		if note.GetMessage() != want {
			t.Errorf("the client of grpc-go received %q, want %q", note.GetMessage(), want)
		}
	}
	receive("Anyone here?")
	marker := p.marker(harbour)
	p.click(marker)
	p.await(`document.querySelector('#log > li .text')?.textContent === 'Anyone here?'`)
	p.click("#text")
	p.write("I am.")
	receive("I am.")
}
