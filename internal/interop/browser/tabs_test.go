package browser

import (
	"testing"
)

// Two tabs hear each other.
func TestTwoTabs(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	one := openTab(t, s.url()+"/"+newYork.hash())
	two := one.another(s.url() + "/" + newYork.hash())
	one.awaitLive()
	two.awaitLive()
	one.clickAt(atSea)
	one.write("from the first tab")
	two.await(`document.querySelectorAll('.place').length === 1`)
	two.click(".place")
	two.await(`document.querySelector('#log > li .text')?.textContent === 'from the first tab'`)
	two.click("#text")
	two.write("from the second tab")
	one.await(`document.querySelector('#log > li .text').textContent === 'from the second tab'`)
	if one.count("#log > li") != 2 || two.count("#log > li") != 2 {
		t.Errorf("the logs are %q and %q", one.log(), two.log())
	}
}

// Over HTTP/1.1 a browser has six connections to a server for all of its tabs, and each page holds one, as docs/map.md says. With six pages, a note
// waits, and so does the seventh page. Both go on once another page is closed.
func TestSeventhTabWaits(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	one := openTab(t, s.url()+"/"+newYork.hash())
	one.awaitLive()
	for range 4 {
		one.another(s.url() + "/" + newYork.hash()).awaitLive()
	}
	six := one.another(s.url() + "/" + newYork.hash())
	six.awaitLive()
	one.clickAt(atSea)
	one.awaitFocus("#text")
	one.keys("it waits")
	one.click("#send")
	one.await(`document.querySelector('#leaving').textContent !== ''`)
	seven := newTab(t, one.ctx, s.url(), "about:blank", nil)
	seven.allow(`NavigationEntryMarkedSkippable`) // No user has touched the empty page.
	seven.script(`setTimeout(() => { location = args[0] })`, s.url()+"/"+newYork.hash())
	seven.awaitObserved(func() bool { return len(seven.requested("/")) == 1 }, "a request")
	// What the others get in the meantime, these would have got, too.
	s.leave(harbour, "who hears?")
	six.await(`document.querySelectorAll('.place').length === 1`)
	if request := seven.requested("/")[0]; request.status != 0 {
		t.Errorf("the seventh page got an answer with status %d, although six streams are open", request.status)
	}
	if notes := s.notes(everywhere); len(notes) != 1 {
		t.Errorf("there are %d notes, although six streams are open", len(notes))
	}
	six.close()
	one.awaitLeft("it waits")
	seven.awaitObserved(func() bool { return len(seven.requested(followNotes)) == 1 }, "the stream of the seventh page")
	seven.awaitLive()
}
