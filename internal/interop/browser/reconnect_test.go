package browser

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// allowLostConnections says that the test breaks connections.
func (p *tab) allowLostConnections() {
	const errors = `net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|CONNECTION_CLOSED|INCOMPLETE_CHUNKED_ENCODING|CONTENT_LENGTH_MISMATCH|` +
		`EMPTY_RESPONSE|SOCKET_NOT_CONNECTED)`
	p.allow(`^request failed: .*(NoteService|ListFeatures|assets/(world|counties)).* ` + errors)
	p.allow(`^log: network: Failed to load resource: ` + errors)
}

// When the server is killed and comes back, the page says so, goes on from its cursor, and shows every note that was answered, once. A
// note that is being left meanwhile is left, once.
func TestReconnect(t *testing.T) {
	t.Parallel()
	s := startServer(t, onDisk(t)...)
	s.leave(harbour, "before")
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.allowLostConnections()
	p.awaitLive()
	p.click(p.marker(harbour))
	p.await(`document.querySelectorAll('#log > li').length === 1`)

	const kills = 2
	// Others leave notes all the time, here and elsewhere, and retry until they are answered.
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer stop()
	answered := make([][]string, 2)
	for writer, at := range []place{harbour, atSea} {
		others.Go(func() {
			client, err := routechat.New(s.url())
			if err != nil {
				t.Error(err)
				return
			}
			defer client.Close()
			pace := time.NewTicker([]time.Duration{100 * time.Millisecond, 20 * time.Millisecond}[writer])
			defer pace.Stop()
			for i := 0; ctx.Err() == nil; i++ {
				<-pace.C
				text := fmt.Sprintf("%d of writer %d", i, writer)
				if _, err := client.Leave(t.Context(), &routeguide.RouteNote{Location: at.point(), Message: text}); err != nil {
					t.Error(err)
					return
				}
				answered[writer] = append(answered[writer], text)
			}
		})
	}
	for kill := range kills {
		p.await(`document.querySelectorAll('#log > li').length > args[0]`, 10*(kill+1))
		s.kill()
		p.awaitConnection("reconnecting")
		text := fmt.Sprintf("while the server is down, %d", kill)
		p.click("#text")
		p.keys(text)
		p.click("#send")
		p.await(`/again/i.test(document.querySelector('#leaving').textContent)`)
		if kill == 0 {
			p.picture()
		}
		s.restart()
		p.await(`document.querySelector('#text').value === ''`)
		p.awaitLive()
	}
	stop()
	others.Wait()

	// The page shows the newest 1,000 notes of a log, and here are fewer.
	want := 1 + kills + len(answered[0])
	p.await(`document.querySelectorAll('#log > li').length >= args[0]`, want)
	var kept []string
	for _, note := range s.notes(everywhere) {
		if note.GetLocation().GetLatitude() == harbour.point().GetLatitude() {
			kept = append(kept, note.GetText())
		}
	}
	slices.Reverse(kept)
	if shown := p.log(); !slices.Equal(shown, kept) {
		t.Errorf("the log is %q, want %q", shown, kept)
	}
	checkOnce(t, kept, append(answered[0], "before", "while the server is down, 0", "while the server is down, 1"))
	p.await(`document.querySelector('#map').dataset.locations === '2'`)

	requests := p.followed()
	if first := requests[0]; len(first.GetCursor()) != 0 {
		t.Error("the first call has a cursor")
	}
	for _, later := range requests[1:] {
		if len(later.GetCursor()) == 0 {
			t.Error("a later call has no cursor")
		}
	}
	if len(requests) < 1+kills {
		t.Errorf("FollowNotes was called %d times", len(requests))
	}
	t.Logf("%d notes, %d calls of FollowNotes", len(kept), len(requests))
}

// checkOnce fails the test unless a log has each of the texts once, and no others.
func checkOnce(t *testing.T, log, texts []string) {
	t.Helper()
	times := make(map[string]int)
	for _, text := range log {
		times[text]++
	}
	for _, text := range texts {
		if times[text] != 1 {
			t.Errorf("%q was left %d times", text, times[text])
		}
	}
	if len(log) != len(texts) {
		t.Errorf("there are %d notes, want %d", len(log), len(texts))
	}
}

// A server that comes back without its notes resets the page: what is gone is not shown any more, and a new note is, although its position was
// that of another one.
func TestReset(t *testing.T) {
	t.Parallel()
	s := startServer(t) // In memory.
	before := s.leave(harbour, "forgotten")
	s.leave(atSea, "forgotten, too")
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.allowLostConnections()
	p.awaitLive()
	p.await(`document.querySelector('#map').dataset.locations === '2'`)
	p.click(p.marker(harbour))
	p.await(`document.querySelectorAll('#log > li').length === 1`)

	s.kill()
	p.awaitConnection("reconnecting")
	s.restart()
	p.awaitLive()
	p.await(`document.querySelector('#map').dataset.locations === '0'`)
	p.await(`document.querySelectorAll('#log > li').length === 0`)
	after := s.leave(harbour, "new")
	if before.GetPosition() != after.GetPosition() {
		t.Errorf("the positions are %d and %d, want equal ones", before.GetPosition(), after.GetPosition())
	}
	p.await(`document.querySelector('#map').dataset.locations === '1'`)
	p.await(`document.querySelector('#log > li .text')?.textContent === 'new'`)
	if log := p.log(); len(log) != 1 {
		t.Errorf("the log is %q", log)
	}
}

// A note whose answer is lost is left again with the same id: it is kept once, and shown once.
func TestLostAnswerLeavesNoteOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.allow(`^request failed: .*LeaveNote: net::ERR_CONNECTION_RESET`)
	p.allow(`^log: network: Failed to load resource: net::ERR_CONNECTION_RESET .*LeaveNote`)
	p.awaitLive()

	p.loseAnswers("*"+leaveNote, 2)
	p.clickAt(atSea)
	p.write("left once")
	if requests := len(p.requested(leaveNote)); requests != 3 {
		t.Errorf("LeaveNote was called %d times, want 3", requests)
	}
	checkPlace(t, s, p, "left once", atSea)
	if log := p.log(); !slices.Equal(log, []string{"left once"}) {
		t.Errorf("the log is %q", log)
	}
	if text := evaluate[string](p, `document.querySelector('#leaving').textContent`); !strings.Contains(text, "left") {
		t.Errorf("the page says %q", text)
	}
}

// A page that is opened while connections break gets its outlines when they no longer do.
func TestLostOutlinesAreLoadedAgain(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := newTab(t, chromium, s.url(), "about:blank", nil, chromedp.WithNewBrowserContext())
	p.allow(`^request failed: .*/assets/world-\w+\.json: net::ERR_CONNECTION_RESET`)
	p.allow(`^log: network: Failed to load resource: net::ERR_CONNECTION_RESET .*/assets/world-`)
	p.loseAnswers("*/assets/world-*", 2)
	p.do(chromedp.Navigate(s.url() + "/" + newYork.hash()))
	p.awaitLive()
	p.awaitOutlines()
}

// loseAnswers breaks the connection at the first answers to the requests that match a pattern, after the server has sent them.
func (p *tab) loseAnswers(pattern string, number int) {
	p.t.Helper()
	listening, cancel := context.WithCancel(p.ctx)
	var answers sync.WaitGroup
	p.t.Cleanup(func() {
		cancel()
		answers.Wait()
	})
	lost := 0 // of the goroutine that calls the function below
	if err := chromedp.Listen(listening, func(event any) {
		paused, ok := event.(*fetch.EventRequestPaused)
		if !ok {
			return
		}
		lose := lost < number
		lost++
		answers.Go(func() {
			if lose {
				_, _ = chromedp.Call(listening, fetch.FailRequest, fetch.FailRequestParams{RequestID: paused.RequestID, ErrorReason: network.ErrorReasonConnectionReset})
			} else {
				_, _ = chromedp.Call(listening, fetch.ContinueRequest, fetch.ContinueRequestParams{RequestID: paused.RequestID})
			}
		})
	}); err != nil {
		p.t.Fatal(err)
	}
	p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, fetch.Enable, fetch.EnableParams{
			Patterns: []*fetch.RequestPattern{{URLPattern: pattern, RequestStage: fetch.RequestStageResponse}},
		})
		return err
	}))
}
