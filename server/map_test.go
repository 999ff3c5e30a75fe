package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/rawhttp2"
)

// transport is a way to call a server.
type transport struct {
	server string // --http2
	isTLS  bool
	http   int // 1 or 2
}

// onEachTransport runs a test on each HTTP/2 server, in clear and over TLS, with each HTTP version. The server has the given flags.
func onEachTransport(t *testing.T, test func(t *testing.T, url string, caller *http.Client, by transport), flags ...string) {
	t.Helper()
	for _, server := range []string{"native", "net/http"} {
		for _, isTLS := range []bool{false, true} {
			args := append([]string{"--http2", server}, flags...)
			var trusted *tls.Config
			if isTLS {
				certificate, key := certtest.SelfSigned(t)
				args = append(args, "--tls-cert", certificate, "--tls-key", key)
				trusted = withRootCA(t, certificate)
			}
			url, stop := start(t, args...)
			if isTLS {
				url = strings.Replace(url, "http:", "https:", 1)
			}
			for major := 1; major <= 2; major++ {
				by := transport{server, isTLS, major}
				caller := by.caller(trusted)
				t.Run(fmt.Sprintf("%+v", by), func(t *testing.T) { test(t, url, caller, by) })
				caller.CloseIdleConnections()
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	}
}

func (b transport) caller(trusted *tls.Config) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(b.http == 1)
	protocols.SetHTTP2(b.http == 2 && b.isTLS)
	protocols.SetUnencryptedHTTP2(b.http == 2 && !b.isTLS)
	return &http.Client{Transport: &http.Transport{Protocols: &protocols, TLSClientConfig: trusted}}
}

// send returns the response to a request, and its body. fields are pairs.
func send(t *testing.T, caller *http.Client, method, url, body string, fields ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(fields, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	response, err := caller.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

func TestMapIsServedOnEachTransport(t *testing.T) {
	onEachTransport(t, func(t *testing.T, url string, caller *http.Client, _ transport) {
		response, page := send(t, caller, http.MethodGet, url+"/", "")
		if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(page, `<meta name="map-tiles" content="https://tile.example.org/{z}/{x}/{y}.png">`) {
			t.Errorf("/: got %s, %v, %s", response.Status, response.Header, page)
		}
		if policy := response.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "img-src 'self' data: https://tile.example.org;") {
			t.Errorf("the policy is %q", policy)
		}
		references := regexp.MustCompile(`(?:src|href)="((?:assets/|LICENSES)[^"]+)"`).FindAllStringSubmatch(page, -1)
		if len(references) < 2 {
			t.Errorf("the page refers to %v", references)
		}
		for _, reference := range references {
			path := url + "/" + reference[1]
			whole, content := send(t, caller, http.MethodGet, path, "", "Accept-Encoding", "identity")
			if whole.StatusCode != http.StatusOK || whole.ContentLength != int64(len(content)) || content == "" {
				t.Errorf("%s: got %s with %d bytes of %d", path, whole.Status, len(content), whole.ContentLength)
			}
			unpacked, text := send(t, caller, http.MethodGet, path, "") // Go's client asks for gzip, and unpacks it.
			if text != content {
				t.Errorf("%s: gzip has %d bytes, want %d", path, len(text), len(content))
			}
			cached, text := send(t, caller, http.MethodGet, path, "", "Accept-Encoding", "identity", "If-None-Match", whole.Header.Get("ETag"))
			if cached.StatusCode != http.StatusNotModified || text != "" {
				t.Errorf("%s with its ETag: got %s, %q", path, cached.Status, text)
			}
			if unpacked.Uncompressed == (unpacked.Header.Get("ETag") == whole.Header.Get("ETag")) {
				t.Errorf("%s: the ETag is %s, in gzip %s", path, whole.Header.Get("ETag"), unpacked.Header.Get("ETag"))
			}
			head, text := send(t, caller, http.MethodHead, path, "", "Accept-Encoding", "identity")
			if head.ContentLength != whole.ContentLength || text != "" {
				t.Errorf("HEAD %s: got %s, %d bytes, %q", path, head.Status, head.ContentLength, text)
			}
		}
		if response, _ := send(t, caller, http.MethodGet, url+"/assets/none-00000000.js", ""); response.StatusCode != http.StatusNotFound {
			t.Errorf("an unknown asset: got %s", response.Status)
		}
	}, "--map-tiles", "https://tile.example.org/{z}/{x}/{y}.png", "--map-attribution", "Example")
}

// withoutDate returns a header in a form that can be compared.
func withoutDate(header http.Header) string {
	header = header.Clone()
	header.Del("Date")
	return fmt.Sprint(header)
}

// Other requests than GET and HEAD of the page's paths get the responses that they get without a map.
func TestMapLeavesOtherRequestsAlone(t *testing.T) {
	bare := make(map[string]string) // URLs by HTTP/2 server
	for _, server := range []string{"native", "net/http"} {
		url, stop := start(t, "--no-map", "--http2", server, "--cors-origins", "https://example.com")
		bare[server] = url
		defer func() {
			if err := stop(); err != nil {
				t.Error(err)
			}
		}()
	}
	onEachTransport(t, func(t *testing.T, mapped string, caller *http.Client, by transport) {
		inClear := transport{server: by.server, http: by.http}.caller(nil)
		defer inClear.CloseIdleConnections()
		for _, test := range []struct {
			method, path, body string
			fields             []string
		}{
			{http.MethodPost, "/", "{}", []string{"Content-Type", "application/json"}},
			{http.MethodPost, "/", "", []string{"Content-Type", "application/grpc", "Te", "trailers"}},
			{http.MethodPost, "/", "", []string{"Content-Type", "application/grpc-web"}},
			{http.MethodPut, "/", "", nil},
			{http.MethodOptions, "/", "", []string{"Origin", "https://example.com", "Access-Control-Request-Method", "GET"}},
			{http.MethodOptions, "/routeguide.RouteGuide/GetFeature", "", []string{"Origin", "https://example.com", "Access-Control-Request-Method", "POST"}},
			{http.MethodPost, "/assets/x", "{}", []string{"Content-Type", "application/json"}},
			{http.MethodGet, "/index.html", "", nil},
			{http.MethodGet, "/favicon.ico", "", nil},
			{http.MethodGet, "//", "", nil},
			{http.MethodPost, "//routeguide.RouteGuide/GetFeature", "{}", []string{"Content-Type", "application/json"}},
			{http.MethodGet, "/routeguide.RouteGuide/RouteChat", "", nil},
			{http.MethodPost, "/routeguide.RouteGuide/GetFeature", `{"latitude": 409146138, "longitude": -746188906}`, []string{"Content-Type", "application/json", "Origin", "https://example.com"}},
			{http.MethodGet, "/routeguide.RouteGuide/GetFeature?encoding=json&message=%7B%7D", "", nil},
			{http.MethodPost, "/grpc.health.v1.Health/Check", "{}", []string{"Content-Type", "application/json"}},
		} {
			want, wantBody := send(t, inClear, test.method, bare[by.server]+test.path, test.body, test.fields...)
			got, gotBody := send(t, caller, test.method, mapped+test.path, test.body, test.fields...)
			if got.StatusCode != want.StatusCode || gotBody != wantBody || withoutDate(got.Header) != withoutDate(want.Header) || withoutDate(got.Trailer) != withoutDate(want.Trailer) {
				t.Errorf("%s %s: got %s, %v, %q; without a map %s, %v, %q", test.method, test.path, got.Status, got.Header, gotBody, want.Status, want.Header, wantBody)
			}
		}
	}, "--cors-origins", "https://example.com")
}

func TestMapNeedsNoTokenAndCallsDo(t *testing.T) {
	const token = "0123456789abcdef"
	file := t.TempDir() + "/tokens"
	write(t, file, token+"\n")
	onEachTransport(t, func(t *testing.T, url string, caller *http.Client, _ transport) {
		if response, page := send(t, caller, http.MethodGet, url+"/", ""); response.StatusCode != http.StatusOK || !strings.Contains(page, "<title>") {
			t.Errorf("/: got %s, %q", response.Status, page)
		}
		for path, want := range map[string]int{
			"/routeguide.RouteGuide/GetFeature": http.StatusUnauthorized,
			"/":                                 http.StatusUnauthorized, // A POST is no request for the page.
			"/grpc.health.v1.Health/Check":      http.StatusOK,
		} {
			if response, text := send(t, caller, http.MethodPost, url+path, "{}", "Content-Type", "application/json"); response.StatusCode != want {
				t.Errorf("POST %s without a token: got %s, %q, want %d", path, response.Status, text, want)
			}
		}
		response, text := send(t, caller, http.MethodPost, url+"/routeguide.RouteGuide/GetFeature", "{}", "Content-Type", "application/json", "Authorization", "Bearer "+token)
		if response.StatusCode != http.StatusOK {
			t.Errorf("with the token: got %s, %q", response.Status, text)
		}
	}, "--tokens", file)
}

// A chat, which is a stream in both directions, passes the map in each protocol.
func TestMapLeavesChatsAlone(t *testing.T) {
	for _, server := range []string{"native", "net/http"} {
		url, stop := start(t, "--http2", server)
		for _, option := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithHTTPGet()} {
			if err := callAndChat(t.Context(), routechat.Config{}, url, option); err != nil {
				t.Error(err)
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestNoMapServesNoPage(t *testing.T) {
	onEachTransport(t, func(t *testing.T, url string, caller *http.Client, _ transport) {
		for _, path := range []string{"/", "/LICENSES.txt", "/assets/x"} {
			response, text := send(t, caller, http.MethodGet, url+path, "")
			if response.StatusCode != http.StatusNotFound || response.Header.Get("Content-Type") != "application/json" || !strings.Contains(text, "no method at "+path+": paths are ") ||
				response.Header.Get("Content-Security-Policy") != "" {
				t.Errorf("%s: got %s, %v, %q", path, response.Status, response.Header, text)
			}
		}
	}, "--no-map")
}

// Clients that take nothing of the page hold at most their share of the responses, each for the stall timeout. Calls go on.
func TestMapBoundsSlowConsumers(t *testing.T) {
	for _, server := range []string{"native", "net/http"} {
		t.Run(server, func(t *testing.T) {
			url, stop := start(t, "--http2", server, "--client-share", "1", "--stall-timeout", "1s")
			conn, err := rawhttp2.Dial(strings.TrimPrefix(url, "http://"), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			if err != nil {
				t.Fatal(err)
			}
			const share = maxMapResponses / 100
			for i := range share + 5 {
				if err := getStream(conn, uint32(1+2*i), "/"); err != nil {
					t.Fatal(err)
				}
			}
			refused, reset := 0, 0
			decoder := hpack.NewDecoder(4096, nil)
			for refused < 5 || reset < share {
				frame, err := conn.ReadFrame()
				if err != nil {
					t.Fatalf("after %d refusals and %d resets: %v", refused, reset, err)
				}
				switch frame := frame.(type) {
				case *http2.HeadersFrame:
					fields, err := decoder.DecodeFull(frame.HeaderBlockFragment())
					if err != nil {
						t.Fatal(err)
					}
					if slices.ContainsFunc(fields, func(field hpack.HeaderField) bool { return field.Name == ":status" && field.Value == "503" }) {
						refused++
					}
				case *http2.RSTStreamFrame:
					reset++
				}
			}
			if err := callAndChat(t.Context(), routechat.Config{}, url); err != nil {
				t.Error(err)
			}
			if page := get(t, url+"/"); !strings.Contains(page, "<title>") { // The share is free again.
				t.Errorf("got %q", page)
			}
			if err := errors.Join(conn.Close(), stop()); err != nil {
				t.Error(err)
			}
		})
	}
}

// getStream opens a stream with a GET.
func getStream(conn *rawhttp2.Conn, stream uint32, path string) error {
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "localhost"}, {":path", path}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return err
		}
	}
	return conn.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true})
}

func TestInvalidMapFlagsAreUsageErrors(t *testing.T) {
	const tiles = "https://tile.example.org/{z}/{x}/{y}.png"
	for want, args := range map[string][]string{
		"--map-tiles and --map-attribution go together: ":  {"--map-tiles", tiles},
		"--map-tiles and --map-attribution go together:":   {"--map-attribution", "Example"},
		"--map-tiles does not go with --no-map":            {"--map-tiles", tiles, "--map-attribution", "Example", "--no-map"},
		"--map-attribution \"a\\nb\": want a line of text": {"--map-tiles", tiles, "--map-attribution", "a\nb"},
		"--map-tiles: \"https://a;b/{z}/{x}/{y}\": ":       {"--map-tiles", "https://a;b/{z}/{x}/{y}", "--map-attribution", "Example"},
		"placeholders": {"--map-tiles", "https://tile.example.org/", "--map-attribution", "Example"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // With valid flags, it would serve.
		defer cancel()
		var usage *command.UsageError
		if err := run(ctx, append(args, "--listen", "127.0.0.1:0", "--store", "memory:"), io.Discard, io.Discard); !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want a usage error with %q", args, err, want)
		}
	}
}

func TestMapURLOpensInBrowser(t *testing.T) {
	address := &net.TCPAddr{IP: net.IPv4zero, Port: 50051}
	for _, test := range []struct {
		listen string
		isTLS  bool
		want   string
	}{
		{"localhost:50051", false, "http://localhost:50051/"},
		{"127.0.0.1:0", false, "http://127.0.0.1:50051/"},
		{":0", false, "http://localhost:50051/"},
		{"0.0.0.0:50051", true, "https://localhost:50051/"},
		{"[::]:50051", false, "http://localhost:50051/"},
		{"[::1]:50051", false, "http://[::1]:50051/"},
		{"notes.example.org:https", true, "https://notes.example.org:50051/"},
	} {
		if got := mapURL(test.listen, address, test.isTLS); got != test.want {
			t.Errorf("--listen %s: got %s, want %s", test.listen, got, test.want)
		}
	}
}

// The log of the start has the URL of the page, in text and in JSON, and none with --no-map.
func TestMapURLIsLogged(t *testing.T) {
	for _, test := range []struct {
		args   []string
		serves bool
	}{
		{nil, true}, {[]string{"--log-format", "json"}, true}, {[]string{"--no-map"}, false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		read, write := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := run(ctx, append([]string{"--listen", "localhost:0", "--store", "memory:"}, test.args...), io.Discard, write)
			_ = write.CloseWithError(io.EOF)
			ended <- err
		}()
		line := ""
		for log := bufio.NewScanner(read); log.Scan(); {
			if line = log.Text(); strings.Contains(line, "serving RouteGuide") {
				break
			}
		}
		go func() { _, _ = io.Copy(io.Discard, read) }()
		match := regexp.MustCompile(`map"?[=:]"?(http://localhost:\d+/)(?:"|\s|$)`).FindStringSubmatch(line)
		if test.serves != (match != nil) {
			t.Errorf("%q: the log has %s", test.args, line)
		}
		if match != nil {
			if page := get(t, match[1]); !strings.Contains(page, "<title>") {
				t.Errorf("%s: got %q", match[1], page)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
