package browser

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// maxText is the server's limit of a text, in bytes.
const maxText = 64 << 10

// hostileTexts are notes that try to be more than text.
func hostileTexts() map[string]string {
	return map[string]string{
		"img onerror":            `<img src=x onerror="window.executed = true">`,
		"script":                 `<script>window.executed = true</script>`,
		"end of a textarea":      `</textarea></li></ol><script>window.executed = true</script><h1>HEADING</h1>`,
		"svg onload":             `<svg onload="window.executed = true"></svg>`,
		"javascript URL":         `<a href="javascript:window.executed=true">here</a> javascript:alert(1)`,
		"attribute":              `" onmouseover="window.executed = true" autofocus onfocus="window.executed = true" x="`,
		"entities":               `&lt;b&gt; &amp; &#60;`,
		"template":               `{{.Tiles}} ${window.executed = true} %s %n`,
		"right-to-left override": "\u202etxt.exe\u202d\u2066\u2067 never closed",
		"right to left":          "שלום עולם – مرحبا بالعالم",
		"zero width":             "\u200b\u200b\u200b\ufeff\u2060",
		"zero width in a word":   "in\u200bvis\u200dible",
		"combining marks":        "Z" + strings.Repeat("\u0300\u0317\u034f\u0489", 500) + "algo",
		"word without spaces":    strings.Repeat("w", maxText),
		"newlines":               strings.Repeat("\n", maxText-len("end")) + "end",
		"line after line":        strings.Repeat("line\n", 5000),
		"tabs and controls":      "a\tb\x00c\x01\x1b[31md\x7f",
		"line separators":        "a\u2028b\u2029c\r\nd\re",
		"emoji":                  "👩‍👩‍👧‍👦🏳️‍🌈" + strings.Repeat("🧑🏿‍🚀", 200),
		"noncharacters":          "\ufffe\uffff\U0010ffff\ue000",
		"wide":                   strings.Repeat("﷽", 300),
		"spaces":                 "   \u00a0\u3000   ",
		"empty":                  "",
	}
}

// What strangers write is shown as text, whatever it is: nothing of it is executed or becomes an element, nothing leaves the window,
// and the panel stays usable. On a large screen and on a phone.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	texts := hostileTexts()
	for _, text := range texts {
		s.leave(harbour, text)
	}
	for name, setup := range map[string][]chromedp.Action[chromedp.Void]{
		"desktop": nil,
		"phone":   {phone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := openTab(t, s.url()+"/"+newYork.hash(), setup...)
			p.awaitLive()
			p.click(p.marker(harbour))
			p.await(`document.querySelectorAll('#log > li').length >= args[0]`, len(texts))
			for text := range texts {
				// Beside others, since each is the caption of its marker, and is announced.
				s.leave(place{harbour.latitude - 0.2, harbour.longitude}, texts[text])
			}
			p.checkLayout()
			p.checkReadable()
			p.checkUsable()
			// Long texts are folded.
			evaluate[chromedp.Void](p, `document.querySelectorAll('#log .unfold').forEach((button) => button.click())`)
			want := make([]string, 0, len(texts))
			for _, text := range texts {
				want = append(want, text)
			}
			got := p.log()
			for name, text := range texts {
				if !slices.Contains(got, text) {
					t.Errorf("%s is not shown as it was left: %.100q", name, text)
				}
			}
			for _, text := range got {
				if !slices.Contains(want, text) && !strings.HasPrefix(text, "usable on") {
					t.Errorf("%.100q is shown, and was not left", text)
				}
			}
			p.checkLayout()
			p.checkReadable()
			p.checkUsable()
			evaluate[chromedp.Void](p, `document.querySelector('#panel').scrollTo(0, 0)`)
			p.click("#text")
			p.write("usable on the " + name)
			p.checkNothingExecuted()
		})
	}
}

// The names of features are texts, too.
func TestHostileFeatureNames(t *testing.T) {
	t.Parallel()
	texts := hostileTexts()
	delete(texts, "empty") // ListFeatures leaves out what has no name.
	kinds := slices.Sorted(maps.Keys(texts))
	at := func(i int) place {
		return place{newYork.center.latitude + float64(i/8)*0.2, newYork.center.longitude + float64(i%8)*0.2}
	}
	names := make(map[place]string)
	for i, kind := range kinds {
		names[at(i)] = texts[kind]
	}
	s := startServer(t, withNames(t, names)...)
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.awaitFeatures(s)
	for i, kind := range kinds {
		x, y := p.pixel(at(i))
		p.hover(x, y)
		p.do(chromedp.MouseClickXY(x, y))
		p.await(`document.querySelector('#place').textContent === args[0]`, texts[kind])
		p.checkLayout()
	}
	p.checkNothingExecuted()
}

// checkReadable fails the test if a note is cut at its side, except for a piled-up letter, which cannot be wrapped.
func (p *tab) checkReadable() {
	p.t.Helper()
	if cut := evaluate[[]string](p, `[...document.querySelectorAll('#log .text')].filter((text) => text.scrollWidth > text.clientWidth + 1 && !/\u0300/.test(text.textContent))
		.map((text) => text.textContent.slice(0, 100))`); len(cut) != 0 {
		p.t.Errorf("notes are cut: %q", cut)
	}
}

// checkNothingExecuted fails the test if the page ran something of a text, or made elements of it. Violations of the policy fail it anyway.
func (p *tab) checkNothingExecuted() {
	p.t.Helper()
	if evaluate[bool](p, `window.executed !== undefined`) {
		p.t.Error("a script in a text was executed")
	}
	if made := evaluate[[]string](p, `[...document.querySelectorAll('body img, body script, .text *, [onerror], [onload], [onmouseover], [href^=javascript]')].map((element) => element.outerHTML.slice(0, 100))`); len(made) != 0 {
		p.t.Errorf("a text became elements: %q", made)
	}
}

// checkLayout fails the test if an element of the page leaves the window to the side, or makes it scroll.
func (p *tab) checkLayout() {
	p.t.Helper()
	outside := evaluate[[]string](p, `[...document.querySelectorAll('#panel, #panel *, #status, #token, header, header *')].filter((element) => {
		const { left, right, width } = element.getBoundingClientRect()
		return width > 0 && (left < -1 || right > innerWidth + 1)
	}).map((element) => element.outerHTML.slice(0, 200))`)
	if len(outside) != 0 {
		p.t.Errorf("%d elements leave the window: %q", len(outside), outside)
	}
	if evaluate[bool](p, `document.documentElement.scrollWidth > innerWidth || document.documentElement.scrollHeight > innerHeight
		|| document.querySelector('#panel').scrollWidth > document.querySelector('#panel').clientWidth`) {
		p.t.Errorf("the page scrolls: %s", evaluate[string](p, `JSON.stringify([document.documentElement.scrollWidth, innerWidth, document.documentElement.scrollHeight, innerHeight,
			document.querySelector('#panel').scrollWidth, document.querySelector('#panel').clientWidth])`))
	}
}

// checkUsable fails the test unless the form of the panel can be reached and nothing covers it.
func (p *tab) checkUsable() {
	p.t.Helper()
	for _, selector := range []string{"#text", "#send", "#close"} {
		if !evaluate[bool](p, `(() => {
			const element = document.querySelector(args[0])
			element.scrollIntoView({ block: 'nearest', behavior: 'instant' })
			const { left, top, width, height } = element.getBoundingClientRect()
			const hit = document.elementFromPoint(left + width / 2, top + height / 2)
			return element === hit || element.contains(hit)
		})()`, selector) {
			p.t.Errorf("%s cannot be clicked", selector)
		}
	}
}
