package browser

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

// Whatever can have the focus has a name that screen readers speak, and a role; and what changes by itself is announced.
func TestAccessibilityTree(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.leave(harbour, "a note with a name")
	s.fill(t, 50, place{40.3, -74.9}, place{40.4, -74.8}) // A cluster.
	p := openTab(t, s.url()+"/"+newYork.hash())
	p.awaitLive()
	p.awaitFeatures(s)
	p.await(`document.querySelectorAll('.cluster').length > 0`)
	p.click(p.marker(harbour))
	p.await(`document.querySelectorAll('#log > li').length === 1`)

	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	tree, err := chromedp.Call(ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		t.Fatal(err)
	}
	focusable := 0
	var roles []string
	for _, node := range tree.Nodes {
		if node.Ignored {
			continue
		}
		role, name := text(node.Role), text(node.Name)
		roles = append(roles, role+" "+name)
		for _, property := range node.Properties {
			if property.Name == accessibility.PropertyNameFocusable && text(property.Value) == "true" && role != "RootWebArea" {
				focusable++
				if strings.TrimSpace(name) == "" || role == "generic" {
					t.Errorf("a focusable %s has the name %q", role, name)
				}
			}
		}
	}
	// The map, zoom in and out, the place, a cluster, the form, the button that closes, and links.
	if focusable < 9 {
		t.Errorf("only %d elements can have the focus: %q", focusable, roles)
	}
	hasRole := func(role, name string) bool {
		return slices.ContainsFunc(roles, func(found string) bool { return strings.HasPrefix(found, role+" ") && strings.Contains(found, name) })
	}
	for _, want := range []struct{ role, name string }{
		{"main", ""}, {"heading", ""}, {"status", ""}, {"textbox", ""}, {"list", ""},
		{"button", "a note with a name"}, {"button", "40.6892"},
	} {
		if !hasRole(want.role, want.name) {
			t.Errorf("there is no %s %q among %q", want.role, want.name, roles)
		}
	}
	if !evaluate[bool](p, `document.documentElement.lang !== '' && document.title !== '' &&
		document.querySelector('#announcements').ariaLive === 'polite' && document.querySelector('#status').role === 'status'`) {
		t.Error("the page has no language or title, or does not announce notes or its state")
	}
}

// text returns a value of the tree as a text.
func text(value *accessibility.Value) string {
	if value == nil {
		return ""
	}
	return strings.Trim(string(value.Value), `"`)
}
