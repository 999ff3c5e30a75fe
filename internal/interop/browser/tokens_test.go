package browser

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const token = "correct-horse-battery-staple"

// A server with tokens: the page asks for one until it is right, keeps it for the tab, and puts it nowhere else.
func TestTokens(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "--tokens", file, "--insecure")
	p := openTab(t, s.url()+"/"+newYork.hash())
	unauthenticated := func(p *tab) {
		p.allow(`^response: .*(FollowNotes|ListFeatures): status 401`)
		p.allow(`^log: network: .* status of 401`)
	}
	unauthenticated(p)
	p.awaitConnection("unauthenticated")
	p.await(`document.querySelector('#token').checkVisibility()`)
	p.awaitFocus("#token-value")
	p.awaitOutlines()
	p.picture()

	calls := len(p.requested(followNotes))
	p.keys("wrong")
	p.keys(kb.Enter)
	p.awaitObserved(func() bool { return len(p.requested(followNotes)) > calls }, "another call")
	p.awaitConnection("unauthenticated")
	p.await(`document.querySelector('#token').checkVisibility()`)

	evaluate[chromedp.Void](p, `document.querySelector('#token-value').select()`)
	p.keys(token)
	p.keys(kb.Enter)
	p.awaitLive()
	p.awaitHidden("#token")
	p.await(`Number(document.querySelector('#map').dataset.features) > 0`)
	p.clickAt(atSea)
	p.write("with a token")

	calls = len(p.requested(followNotes))
	p.do(chromedp.Reload())
	p.awaitLive()
	p.await(`document.querySelector('#map').dataset.locations === '1'`)
	if calls == len(p.requested(followNotes)) {
		t.Error("the reload did not call FollowNotes")
	}

	if where := evaluate[string](p, `JSON.stringify([location.href, {...localStorage}, history.state])`); strings.Contains(where, token) {
		t.Errorf("the token is in %s", where)
	}
	p.mu.Lock()
	for _, request := range p.requests {
		if strings.Contains(request.url.String(), token) {
			t.Errorf("the token is in the URL %s", request.url)
		}
	}
	p.mu.Unlock()

	other := p.another(s.url() + "/" + newYork.hash())
	unauthenticated(other)
	other.awaitConnection("unauthenticated")
	other.await(`document.querySelector('#token').checkVisibility()`)
}
