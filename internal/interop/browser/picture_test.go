package browser

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// picture takes a picture of the page.
func (p *tab) picture() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	image, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Errorf("take a picture: %v", err)
		return
	}
	name := strings.NewReplacer("/", "-", " ", "-").Replace(p.t.Name())
	for number := 1; ; number++ {
		path := filepath.Join(pictures, fmt.Sprintf("%s-%d.png", name, number))
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, os.ErrExist) {
			continue // Another picture of this test.
		}
		if err != nil {
			p.t.Error(err)
			return
		}
		_, err = file.Write(image)
		if err := errors.Join(err, file.Close()); err != nil {
			p.t.Error(err)
		}
		return
	}
}

var screenshot = flag.String("screenshot", "", "write the picture for the README to this `file`")

// maxScreenshot is the largest picture of the README, in bytes.
const maxScreenshot = 200_000

// TestScreenshot takes the picture of the README: `make screenshot`.
func TestScreenshot(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, note := range []struct {
		at   place
		text string
	}{
		{place{40.7829, -73.9654}, "Free yoga on the Great Lawn at six."},
		{place{40.6892, -74.0445}, "The queue for the ferry is an hour. Come early!"},
		{place{40.9176, -74.1719}, "The Great Falls are in full flow today."},
		{place{40.3573, -74.6672}, "Fossils in the geology hall, and no entrance fee."},
		{place{41.2945, -74.6730}, "High Point: fog, no view, good coffee."},
		{place{40.4774, -74.2591}, "Tide is out, the sandbar is dry."},
		{place{41.3084, -73.9876}, "Trail to Bear Mountain is closed above the inn."},
		{place{40.5795, -73.9707}, "The boardwalk is lit until ten."},
		{place{40.8568, -73.3110}, "Sunken Meadow: the creek is warm enough to swim."},
	} {
		s.leave(note.at, note.text)
	}
	s.fill(t, 24, place{40.70, -73.99}, place{40.76, -73.94})
	s.fill(t, 7, place{40.71, -74.19}, place{40.75, -74.15})
	trail := place{40.9146138, -74.6188906} // The place of the tutorials.
	for _, text := range []string{"Is the footbridge open?", "It is. Mind the mud.", "Two herons at the pond this morning.", "Met nobody all day. Bring water."} {
		s.leave(trail, text)
	}
	p := openTab(t, s.url()+"/"+view{zoom: 9, center: place{40.75, -74.5}}.hash())
	p.awaitLive()
	p.awaitFeatures(s)
	p.click(p.marker(trail))
	p.await(`document.querySelectorAll('#log > li').length === 4`)
	evaluate[chromedp.Void](p, `document.activeElement.blur()`)
	p.awaitStill()

	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	captured, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := png.Decode(bytes.NewReader(captured))
	if err != nil {
		t.Fatal(err)
	}
	var compressed bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&compressed, indexed(decoded)); err != nil {
		t.Fatal(err)
	}
	small := compressed.Bytes()
	if len(small) > maxScreenshot {
		t.Errorf("the picture has %d bytes, want at most %d", len(small), maxScreenshot)
	}
	t.Logf("the picture has %d bytes", len(small))
	if *screenshot != "" {
		if err := os.WriteFile(*screenshot, small, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// indexed returns a picture with at most 256 of its colours, which makes a smaller file: the most frequent ones that differ visibly. The
// others, at the edges of letters and lines, become the one that is nearest.
func indexed(picture image.Image) *image.Paletted {
	bounds := picture.Bounds()
	pixels := make(map[color.RGBA]int)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			pixels[color.RGBAModel.Convert(picture.At(x, y)).(color.RGBA)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(pixels), func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(pixels[b], pixels[a]), cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B))
	})
	const visible = 8 // of 255, in each of red, green and blue
	similar := func(a, b uint8) bool { return max(a, b)-min(a, b) < visible }
	var palette color.Palette
	for _, candidate := range colors {
		if len(palette) < 256 && !slices.ContainsFunc(palette, func(taken color.Color) bool {
			other := taken.(color.RGBA)
			return similar(candidate.R, other.R) && similar(candidate.G, other.G) && similar(candidate.B, other.B)
		}) {
			palette = append(palette, candidate)
		}
	}
	result := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			result.Set(x, y, picture.At(x, y))
		}
	}
	return result
}
