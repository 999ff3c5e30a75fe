package browser

import (
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// A note that the server does not take, because it is larger than any message may be, is tried again until the user cancels: the text stays, and can be
// shortened and left.
func TestCancelLeavesText(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.allow(`^response: .*LeaveNote: status 429`)
	p.allow(`^log: network: .* status of 429`)
	p.awaitLive()
	p.clickAt(atSea)
	p.awaitFocus("#text")
	p.awaitHidden("#cancel")
	p.script(`
		const text = document.querySelector('#text')
		text.value = 'far too long '.repeat(50_000)
		text.dispatchEvent(new Event('input'))
	`)
	p.click("#send")
	p.await(`document.querySelector('#cancel').checkVisibility() && /larger than .*Trying again/.test(document.querySelector('#leaving').textContent)`)
	p.checkLayout()
	p.picture()
	p.await(`document.querySelector('#text').readOnly`)
	p.click("#cancel")
	p.await(`!document.querySelector('#text').readOnly && /may have been left/.test(document.querySelector('#leaving').textContent)`)
	p.awaitHidden("#cancel")
	p.awaitFocus("#text")
	p.await(`document.querySelector('#text').value.length === 650_000`)
	p.script(`document.querySelector('#text').select()`)
	p.write("short enough")
	checkPlace(t, s, p, "short enough", atSea)
}

// Leaving a note keeps the focus in the panel, and Escape closes it, from there and from anywhere else. The focus is not lost by it.
func TestEscapeClosesPanel(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	for _, from := range []string{"#send", "#map", "#list summary", "body"} {
		p.clickAt(atSea)
		p.await(`document.querySelector('#panel').checkVisibility()`)
		p.click("#text")
		p.write("left before " + from)
		p.await(`document.querySelector('#panel').contains(document.activeElement)`)
		if from == "body" {
			p.script(`document.activeElement.blur()`)
		} else {
			p.script(`document.querySelector(args[0]).focus()`, from)
		}
		p.keys(kb.Escape)
		p.awaitHidden("#panel")
		p.await(`document.activeElement !== document.body && document.activeElement.checkVisibility()`)
	}
}

// A note of blanks is refused, as an empty one is.
func TestBlankNote(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.clickAt(atSea)
	p.awaitFocus("#text")
	for _, text := range []string{"", "   "} {
		p.keys(text)
		p.click("#send")
		p.await(`!document.querySelector('#text').validity.valid`)
	}
	p.script(`document.querySelector('#text').select()`)
	p.write("  not blank ")
	notes := s.notes(everywhere)
	if len(notes) != 1 || notes[0].GetText() != "  not blank " {
		t.Errorf("the notes are %v", notes)
	}
}

// A note that fails while its place is closed is not forgotten: the card says so, and opens the place.
func TestUnsavedNoteOfClosedPlace(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--max-text", "20")
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.allowLostConnections()
	p.allow(`^response: .*LeaveNote: status 400`)
	p.allow(`^log: network: .* status of 400`)
	p.awaitLive()
	s.kill()
	p.awaitConnection("reconnecting")
	p.clickAt(atSea)
	p.awaitFocus("#text")
	p.keys("longer than the server allows")
	p.click("#send")
	p.await(`document.querySelector('#cancel').checkVisibility()`)
	p.awaitHidden("#unsaved")
	p.click("#close")
	p.await(`document.querySelector('#unsaved').checkVisibility() && /Trying again/.test(document.querySelector('#unsaved').textContent)`)
	s.restart()
	p.awaitLive()
	p.await(`/not left: .*20/.test(document.querySelector('#unsaved').textContent)`)
	p.picture()
	p.click("#unsaved")
	p.awaitHidden("#unsaved")
	p.await(`document.querySelector('#text').value === 'longer than the server allows'`)
	p.script(`document.querySelector('#text').select()`)
	p.click("#text")
	p.script(`document.querySelector('#text').select()`)
	p.write("short enough")
	checkPlace(t, s, p, "short enough", atSea)
}
