package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/internal/command"
	"example.com/routeguide/internal/process"
)

// visit makes a unary call and a chat, and returns the error of the first that fails.
func visit(ctx context.Context, config routechat.Config, url string, options ...connect.ClientOption) error {
	client, err := config.New(url, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.GetFeature(ctx, &routeguide.Point{}); err != nil {
		return err
	}
	stream, err := client.RouteChat(ctx)
	if err != nil {
		return err
	}
	sent := stream.Send(&routeguide.RouteNote{Location: &routeguide.Point{}, Message: "here"})
	if _, err := stream.Receive(); err != nil {
		return errors.Join(err, stream.CloseRequest(), stream.CloseResponse())
	}
	closed := stream.CloseRequest()
	for err == nil {
		_, err = stream.Receive()
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, sent, closed, stream.CloseResponse())
}

// trusting returns how a client trusts servers that an authority, whose certificate is in a file, vouches for.
func trusting(t *testing.T, authority string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(authority)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		t.Fatalf("there is no certificate in %s", authority)
	}
	return config
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	eventuallyWithin(t, 10*time.Second, what, condition)
}

func eventuallyWithin(t *testing.T, timeout time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", timeout, what)
		}
	}
}

func TestTLSAndItsRenewal(t *testing.T) {
	certificate, key := certtest.SelfSigned(t)
	url, stop := start(t, "--tls-cert", certificate, "--tls-key", key)
	secure := strings.Replace(url, "http:", "https:", 1)
	for _, option := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON()} {
		if err := visit(t.Context(), routechat.Config{TLS: trusting(t, certificate)}, secure, option); err != nil {
			t.Error(err)
		}
	}
	if err := visit(t.Context(), routechat.Config{}, secure); err == nil {
		t.Error("a client that does not trust the certificate came in")
	}
	response, err := http.Get(url + "/")
	if err != nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("HTTP on the port of TLS: got %v, %v, want 400", response, err)
	}
	if err == nil {
		_ = response.Body.Close()
	}
	other, otherKey := certtest.SelfSigned(t)
	for from, to := range map[string]string{other: certificate, otherKey: key} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, to, string(text))
	}
	eventually(t, "the new certificate is shown", func() bool {
		return visit(t.Context(), routechat.Config{TLS: trusting(t, other)}, secure) == nil
	})
	http.DefaultClient.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestClientCertificates(t *testing.T) {
	certificate, key := certtest.SelfSigned(t)
	mine, myKey := certtest.SelfSigned(t)
	other, _ := certtest.SelfSigned(t)
	authorities := filepath.Join(t.TempDir(), "authorities.pem") // after a BOM, as some editors write it
	write(t, authorities, "\xef\xbb\xbf"+read(t, mine)+read(t, other))
	url, stop := start(t, "--tls-cert", certificate, "--tls-key", key, "--client-ca", authorities)
	url = strings.Replace(url, "http:", "https:", 1)
	config := trusting(t, certificate)
	if err := visit(t.Context(), routechat.Config{TLS: config}, url); err == nil {
		t.Error("a client without a certificate came in")
	}
	pair, err := tls.LoadX509KeyPair(mine, myKey)
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{pair}
	if err := visit(t.Context(), routechat.Config{TLS: config}, url); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	const token, hashed, later = "0123456789abcdef", "fedcba9876543210", "a-token-that-came-later"
	// printf %s fedcba9876543210 | sha256sum
	write(t, file, "# those who may come in\n"+token+"\n\nsha256:"+hashOf(hashed)+"\n")
	url, stop := start(t, "--tokens", file)
	for _, protocol := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC(), connect.WithGRPCWeb()} {
		for _, test := range []struct {
			token string
			code  connect.Code
		}{{"", connect.CodeUnauthenticated}, {"0123456789abcdeX", connect.CodeUnauthenticated}, {later, connect.CodeUnauthenticated}, {token, 0}, {hashed, 0}} {
			err := visit(t.Context(), routechat.Config{Token: test.token}, url, protocol)
			if test.code == 0 && err != nil || test.code != 0 && connect.CodeOf(err) != test.code {
				t.Errorf("with the token %q: got %v", test.token, err)
			}
		}
	}
	for path, want := range map[string]string{
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": "unauthenticated",
		"/routeguide.RouteGuide/ListFeatures":                       "unauthenticated",
		"/grpc.health.v1.Health/Check":                              "SERVING",
		// What looks like health, and is served by something else.
		"/grpc.reflection.v1.ServerReflection/grpc.health.v1.Health/Check":      "unauthenticated",
		"/grpc.reflection.v1alpha.ServerReflection/grpc.health.v1.Health/Check": "unauthenticated",
		"/routeguide.RouteGuide/grpc.health.v1.Health/Check":                    "unauthenticated",
		"/grpc.health.v1.Health/Check/":                                         "unauthenticated",
	} {
		if got := post(t, url+path); !strings.Contains(got, want) {
			t.Errorf("%s without a token: got %s, want %s", path, got, want)
		}
	}
	write(t, file, later+"\n")
	eventually(t, "the file is read again", func() bool {
		return visit(t.Context(), routechat.Config{Token: later}, url) == nil
	})
	if err := visit(t.Context(), routechat.Config{Token: token}, url); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a token that is not in the file any more: got %v", err)
	}
	write(t, file, "short\n") // What cannot be used changes nothing.
	time.Sleep(1100 * time.Millisecond)
	if err := visit(t.Context(), routechat.Config{Token: later}, url); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestWhatWouldLetOthersListenIsRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"tokens in clear":       {"--listen", "0.0.0.0:0", "--tokens", "file"},
		"an admin port for all": {"--listen", "127.0.0.1:0", "--admin", ":0"},
		"half of TLS":           {"--listen", "127.0.0.1:0", "--tls-cert", "file"},
		"a lonely authority":    {"--listen", "127.0.0.1:0", "--client-ca", "file"},
		"no streams":            {"--listen", "127.0.0.1:0", "--max-streams", "0"},
	} {
		var usage *command.UsageError
		if err := run(t.Context(), append(args, "--store", "memory:"), io.Discard, io.Discard); !errors.As(err, &usage) {
			t.Errorf("%s: got %v, want a usage error", name, err)
		}
	}
}

func TestCallsFromABrowser(t *testing.T) {
	url, stop := start(t, "--cors-origins", " https://example.com , HTTP://Localhost:3000,", "--cors-origins", "https://*.example.net")
	for origin, allowed := range map[string]bool{
		"https://example.com": true, "http://localhost:3000": true, "https://a.example.net": true, "https://example.org": false,
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, url+"/routeguide.RouteGuide/GetFeature", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", origin)
		request.Header.Set("Access-Control-Request-Method", "POST")
		request.Header.Set("Access-Control-Request-Headers", "connect-protocol-version,content-type")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := response.Header.Get("Access-Control-Allow-Origin"); (got == origin) != allowed {
			t.Errorf("%s: may call from %q, want allowed: %v", origin, got, allowed)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestCORSOriginsThatNoBrowserSendsAreUsageErrors(t *testing.T) {
	for origin, want := range map[string]string{
		"example.com":                         "it has no scheme",
		"example.com:8080":                    "it has no scheme",
		"//example.com":                       "it has no scheme",
		"null":                                "it has no scheme",
		"https://":                            "it has no scheme or no host",
		"https://:8080":                       "it has no scheme or no host",
		"https://example.com/":                "a slash at its end",
		"https://example.com/page":            "such as a path",
		"https://example.com?":                "it has more than",
		"https://example.com?x=1":             "it has more than",
		"https://example.com#":                "it has more than",
		"https://user@example.com":            "it has more than",
		"https://example.com:443":             "browsers leave out the port",
		"http://example.com:80":               "browsers leave out the port",
		"http://example.com:":                 "browsers leave out the port",
		"https://a.example https://b.example": "it has no scheme or no host",
		"https://b\u00fccher.example":         "in ASCII",
		"https://*.*.example":                 "only one *",
		"https://good.example, bad.example":   "\"bad.example\" is no origin",
	} {
		_, err := command.Parse(&serverFlags{}, "server", "", map[string]string{"stores": ""}, []string{"--cors-origins", origin}, io.Discard, io.Discard)
		var usage *command.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), "--cors-origins: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want a usage error with %q", origin, err, want)
		}
	}
	for _, origin := range []string{"*", "capacitor://localhost", "http://[::1]:3000", "http://localhost:*"} {
		if err := checkOrigin(origin); err != nil {
			t.Error(err)
		}
	}
}

func TestMetrics(t *testing.T) {
	program, err := program()
	if err != nil {
		t.Fatal(err)
	}
	server, address, err := process.StartServer(program, "--store", "pebble:"+t.TempDir(), "--admin", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := visit(t.Context(), routechat.Config{}, "http://"+address); err != nil {
		t.Fatal(err)
	}
	match, err := server.Await(`admin=(\S+)`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Await(`msg="chat ended" peer=127.0.0.1:\d+ protocol=connect in=1 out=1 duration=\S+ code=ok`); err != nil {
		t.Error(err)
	}
	metrics := get(t, "http://"+match[1]+"/metrics")
	for _, want := range []string{
		`routeguide_notes_received_total 1`, `routeguide_notes_sent_total 1`, `routeguide_chats 0`, `routeguide_replies_pending 0`,
		`routeguide_connections `, `routeguide_chats_stalled_total 0`, `routeguide_chats_shed_total 0`, `routeguide_store_errors_total 0`,
		`routeguide_panics_total 0`, `routeguide_store_commit_duration_seconds_count 1`, `go_goroutines`, `process_resident_memory_bytes`,
		`rpc_method="routeguide.RouteGuide/RouteChat"`, `rpc_method="routeguide.RouteGuide/GetFeature"`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("there is no %s among the metrics:\n%s", want, metrics)
		}
	}
	checkDashboard(t, metrics)
	if ready := get(t, "http://"+match[1]+"/readyz"); ready != "ok\n" {
		t.Errorf("ready: %q", ready)
	}
	if strings.Contains(server.Printed(), "here") {
		t.Error("the text of a note is in the log")
	}
	if err := server.Stop(); err != nil {
		t.Error(err)
	}
}

// metricName is what a name of a metric looks like in a query.
var metricName = regexp.MustCompile(`\b(routeguide|rpc|go|process)_[a-z_]+`)

// checkDashboard fails unless the dashboard parses, and names only metrics that there are.
func checkDashboard(t *testing.T, metrics string) {
	t.Helper()
	text, err := os.ReadFile("../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	labels := regexp.MustCompile(`\{[^}]*\}|by \([^)]*\)`)
	count := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			for _, name := range metricName.FindAllString(labels.ReplaceAllString(target.Expr, ""), -1) {
				count++
				if !strings.Contains(metrics, "\n"+name+"{") && !strings.Contains(metrics, "\n"+name+" ") {
					t.Errorf("%s: there is no metric %s", panel.Title, name)
				}
			}
		}
	}
	if count < 8 {
		t.Errorf("the dashboard has %d metrics", count)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	return do(t, http.MethodGet, url, "")
}

func post(t *testing.T, url string) string {
	t.Helper()
	return do(t, http.MethodPost, url, "{}")
}

func do(t *testing.T, method, url, body string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func hashOf(token string) string {
	hash := sha256.Sum256([]byte(token))
	return hex.EncodeToString(hash[:])
}
