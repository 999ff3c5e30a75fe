package guide_test

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/guide"
)

func point(latitude, longitude int32) *routeguide.Point {
	return &routeguide.Point{Latitude: latitude, Longitude: longitude}
}

func features(locations map[string]*routeguide.Point) []*routeguide.Feature {
	var features []*routeguide.Feature
	for name, location := range locations {
		features = append(features, &routeguide.Feature{Name: name, Location: location})
	}
	return features
}

func TestDefaultHasFeaturesOfTutorial(t *testing.T) {
	t.Parallel()
	defaults, err := guide.Default()
	if err != nil {
		t.Fatal(err)
	}
	guide := guide.New(defaults)
	if got, want := guide.Feature(point(409146138, -746188906)).GetName(), "Berkshire Valley Management Area Trail, Jefferson, NJ, USA"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	count := 0
	for range guide.Within(&routeguide.Rectangle{Lo: point(400000000, -750000000), Hi: point(420000000, -730000000)}) {
		count++
	}
	if count < 300 {
		t.Errorf("there are %d features in the tutorial's rectangle, want a few hundred", count)
	}
}

func TestWithin(t *testing.T) {
	t.Parallel()
	const degree = 1_0000000
	guide := guide.New(features(map[string]*routeguide.Point{
		"zero":     point(0, 0),
		"suva":     point(-18*degree, 178*degree),
		"apia":     point(-14*degree, -172*degree),
		"east end": point(10*degree, 180*degree),
		"west end": point(10*degree, -180*degree),
		"":         point(1*degree, 1*degree),
	}))
	for name, test := range map[string]struct {
		lo, hi *routeguide.Point
		want   string
	}{
		"edges included":                  {point(0, 0), point(0, 0), "zero"},
		"corners in any order":            {point(5, -5), point(-5, 5), "zero"},
		"the whole map, unnamed left out": {point(-90*degree, -180*degree), point(90*degree, 180*degree), "apia east end suva west end zero"},
		"not across the antimeridian":     {point(-20*degree, 170*degree), point(20*degree, -170*degree), "zero"},
		"across, seen from the east":      {point(-20*degree, 170*degree), point(20*degree, 190*degree), "apia east end suva west end"},
		"across, seen from the west":      {point(-20*degree, -190*degree), point(20*degree, -170*degree), "apia east end suva west end"},
		"wholly beyond":                   {point(-20*degree, 185*degree), point(20*degree, 190*degree), "apia"},
		"the antimeridian itself":         {point(0, 180*degree), point(20*degree, 180*degree), "east end west end"},
		"more than once around":           {point(-90*degree, math.MinInt32), point(90*degree, math.MaxInt32), "apia east end suva west end zero"},
		"nothing there":                   {point(50*degree, 50*degree), point(51*degree, 51*degree), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for feature := range guide.Within(&routeguide.Rectangle{Lo: test.lo, Hi: test.hi}) {
				got = append(got, feature.GetName())
			}
			slices.Sort(got)
			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestWithinStopsOnBreak(t *testing.T) {
	t.Parallel()
	defaults, err := guide.Default()
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for range guide.New(defaults).Within(&routeguide.Rectangle{Lo: point(0, math.MinInt32), Hi: point(900000000, 0)}) {
		if count++; count == 3 {
			break
		}
	}
	if count != 3 {
		t.Errorf("got %d features, want 3", count)
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	quarter := guide.EarthRadius * math.Pi / 2
	for name, test := range map[string]struct {
		from, to *routeguide.Point
		want     float64
	}{
		"none":            {point(1, 1), point(1, 1), 0},
		"equator to pole": {point(0, 0), point(900000000, 0), quarter},
		"antipodes":       {point(123456789, 0), point(-123456789, 1800000000), 2 * quarter},
		// The haversine of this pair is rounded to more than 1.
		"antipodes, rounded":     {point(453315979, 924222299), point(-453315979, 924222299-1800000000), 2 * quarter},
		"over the antimeridian":  {point(0, 1795000000), point(0, -1795000000), quarter / 90},
		"a hundred-millionth":    {point(0, 0), point(0, 1), quarter / 90 / 1e7},
		"pole to pole, any side": {point(900000000, 5), point(-900000000, -7), 2 * quarter},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := guide.Distance(test.from, test.to); !(math.Abs(got-test.want) <= 1e-6*max(1, test.want)) {
				t.Errorf("got %v metres, want %v", got, test.want)
			}
		})
	}
}

func TestRouteSummaryRoundsTotalDistance(t *testing.T) {
	t.Parallel()
	places := guide.New(features(map[string]*routeguide.Point{"here": point(5, 0), "here too": point(5, 0)}))
	route := places.StartRoute()
	for i := range int32(101) {
		route.Pass(point(i, 0)) // 1.1 cm each
	}
	got := route.Summary()
	if got.GetPointCount() != 101 || got.GetFeatureCount() != 2 || got.GetDistance() != 1 {
		t.Errorf("got %v, want 101 points, 2 features, 1 metre", got)
	}
}

func TestParseErrorHasEntryAndLine(t *testing.T) {
	t.Parallel()
	const good = `{"location": {"latitude": 1, "longitude": 2}, "name": "x"}`
	for name, test := range map[string]struct{ file, want string }{
		"empty file":                {``, "line 1: unexpected EOF"},
		"not an array":              {`{"location": {}}`, `line 1: "location" is unknown here: want feature`},
		"another list":              {"\n" + `{"features": [` + good + "]}", `line 2: "features" is unknown here: want feature`},
		"no list":                   {`{}`, "line 1: want an array of features like"},
		"no array in it":            {`{"feature": ` + good + "}", "line 1: feature: want an array"},
		"two lists":                 {`{"feature": [], "feature": []}`, "line 1: feature: duplicate object member name"},
		"another case":              {`[{"location": {}, "Name": "x"}]`, `entry 1 (line 1): "Name" is unknown here: want location, name`},
		"a name twice":              {`[{"location": {}, "name": "x", "name": "y"}]`, "entry 1 (line 1): name: duplicate object member name"},
		"a location of null":        {`[{"location": null, "name": "x"}]`, "entry 1 (line 1): location is missing"},
		"a name of null":            {`[{"location": {}, "name": null}]`, "entry 1 (line 1): name is missing"},
		"null":                      {`null`, "line 1: want an array of features like"},
		"a list of null":            {`{"feature": null}`, "line 1: want an array of features like"},
		"a number":                  {`{"5": []}`, `line 1: "5" is unknown here: want feature`},
		"wrong in an object":        {`{"feature": [` + good + ",\n" + `{"location": {"longitude": 1.5}, "name": "x"}]}`, "entry 2 (line 2): location.longitude: want a whole number of 32 bits, not 1.5"},
		"not on Earth in an object": {`{"feature": [` + good + ",\n" + `{"location": {"latitude": 900000001}, "name": "x"}]}`, "entry 2 (line 2): location.latitude: 900000001"},
		"UTF-16":                    {"\xff\xfe[\x00]\x00", "line 1: it begins with a byte order mark of UTF-16"},
		"not UTF-8":                 {"[\n" + `{"location": {}, "name": "` + "\xfc" + `"}]`, "entry 1 (line 2): name: invalid UTF-8"},
		"half a character":          {`[{"location": {}, "name": "\ud800"}]`, "entry 1 (line 1): name: invalid surrogate pair"},
		"no location":               {"[" + good + ",\n\n" + `{"name": "x"}]`, "entry 2 (line 3): location is missing"},
		"no name":                   {"[\n" + `{"location": {}}]`, "entry 1 (line 2): name is missing"},
		"misspelled":                {`[{"location": {"lat": 1}, "name": "x"}]`, `entry 1 (line 1): location: "lat" is unknown here: want latitude, longitude`},
		"not on Earth":              {"[" + good + "," + `{"location": {"latitude": 900000001}, "name": "x"}]`, "entry 2 (line 1): location.latitude: 900000001"},
		"not a number":              {`[{"location": {"latitude": "1"}, "name": "x"}]`, "entry 1"},
		"too large":                 {`[{"location": {"latitude": 3000000000}, "name": "x"}]`, "entry 1"},
		"broken off":                {"[" + good + ",\n{", "entry 2 (line 2): unexpected EOF"},
		"without an end":            {"[" + good, "line 1: unexpected EOF"},
		"more afterwards":           {"[" + good + "]\n[]", "line 2: invalid character '[' after top-level value"},
		"without a comma":           {"[" + good + good + "]", "line 1: invalid character '{' after array element"},
		"an entry is null":          {"[null]", "entry 1 (line 1): location is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			features, err := guide.Parse([]byte(test.file))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, %v, want an error with %q", features, err, test.want)
			}
		})
	}
}

// The tutorials for Go and Java have the same features in different file formats.
func TestParseAcceptsBothStockFormats(t *testing.T) {
	t.Parallel()
	const list = `[{"location": {"latitude": 1, "longitude": 2}, "name": "x"}, {"location": {}, "name": ""}]`
	for name, file := range map[string]string{
		"an array":               list,
		"coordinates of null":    strings.Replace(list, `{}`, `{"latitude": null}`, 1),
		"an object":              `{"feature": ` + list + `}`,
		"an array after a BOM":   "\xef\xbb\xbf" + list,
		"an object after a BOM":  "\xef\xbb\xbf" + `{"feature": ` + list + `}`,
		"lines that end with CR": strings.ReplaceAll(list, " ", "\r"),
	} {
		features, err := guide.Parse([]byte(file))
		if err != nil || len(features) != 2 {
			t.Errorf("%s: got %v, %v", name, features, err)
			continue
		}
		if guide := guide.New(features); guide.Len() != 1 || guide.Feature(point(1, 2)).GetName() != "x" {
			t.Errorf("%s: a guide to %v has %d features", name, features, guide.Len())
		}
	}
}

func FuzzParse(f *testing.F) {
	file, err := os.ReadFile("features.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file[:1000])
	f.Add([]byte(`[{"location": {"latitude": 1, "longitude": 2}, "name": "x"}, {"location": {}, "name": ""}]`))
	f.Add([]byte("[\n,null,]"))
	f.Fuzz(func(t *testing.T, file []byte) {
		features, err := guide.Parse(file)
		if err != nil {
			return
		}
		for _, feature := range features {
			guide.New(features).Feature(feature.GetLocation())
		}
	})
}

// BenchmarkWithin searches a small rectangle among 150,000 features.
func BenchmarkWithin(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	many := make([]*routeguide.Feature, 150_000)
	for i := range many {
		many[i] = &routeguide.Feature{Name: "x", Location: point(random.Int32N(1800000001)-900000000, random.Int32N(1800000001)-900000000)}
	}
	guide := guide.New(many)
	rectangle := &routeguide.Rectangle{Lo: point(400000000, -750000000), Hi: point(410000000, -740000000)}
	b.ReportAllocs()
	for b.Loop() {
		for range guide.Within(rectangle) {
		}
	}
}
