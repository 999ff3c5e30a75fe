package browser

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
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

// A token that the server drops ends the calls of the page, but not its stream: the form for another token stays while notes of others come.
func TestDroppedToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens")
	writeTokens := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const other = "another-token-of-the-server"
	writeTokens(token + "\n")
	s := startServer(t, "--tokens", file, "--insecure")
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.allow(`^response: .*(FollowNotes|ListFeatures|LeaveNote): status 401`)
	p.allow(`^log: network: .* status of 401`)
	p.awaitConnection("unauthenticated")
	p.keys("“" + token + "”") // No header can have these quotation marks.
	p.keys(kb.Enter)
	p.await(`document.querySelector('#token').checkVisibility() && !document.querySelector('#token').checkValidity()`)
	evaluate[chromedp.Void](p, `document.querySelector('#token-value').select()`)
	p.keys(token)
	p.keys(kb.Enter)
	p.awaitLive()

	writeTokens(other + "\n")
	config := routechat.Config{Token: other}
	client, err := config.New(s.url())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	leave := func(at place, text string) error {
		_, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: at.point(), Message: text})
		return err
	}
	// The server looks at the file once a second at most.
	for deadline := time.Now().Add(patience); leave(harbour, "with the other token") != nil; {
		if time.Now().After(deadline) {
			t.Fatal("the server does not take the other token")
		}
	}
	p.await(`document.querySelector('#map').dataset.locations === '1'`)
	p.clickAt(atSea)
	p.await(`document.querySelector('#token').checkVisibility()`) // Reading the log is not allowed.
	p.awaitFocus("#text")
	p.keys("with the first token")
	p.click("#send")
	p.await(`/not left: /.test(document.querySelector('#leaving').textContent)`)
	if err := leave(place{40.9, -74.7}, "while the form is open"); err != nil {
		t.Fatal(err)
	}
	p.await(`document.querySelector('#map').dataset.locations === '2'`)
	p.await(`document.querySelector('#token').checkVisibility()`)
	p.click("#token-value")
	p.awaitFocus("#token-value")
	p.keys(other)
	p.keys(kb.Enter)
	p.awaitLive()
	p.awaitHidden("#token")
	p.click("#send")
	p.awaitLeft("with the first token")
}
