package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"example.com/routeguide/client/routechat"
	"example.com/routeguide/gen/routeguide"
	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"example.com/routeguide/internal/certtest"
	"example.com/routeguide/internal/command"
)

// callAndChat looks up a feature, leaves a note by each service, and returns the first error.
func callAndChat(ctx context.Context, config routechat.Config, url string, options ...connect.ClientOption) error {
	client, err := config.New(url, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.GetFeature(ctx, &routeguide.Point{}); err != nil {
		return err
	}
	if _, err := client.LeaveNote(ctx, &routeguidev1.LeaveNoteRequest{Location: &routeguide.Point{Latitude: 1}, Text: "left"}); err != nil {
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

// withRootCA returns a client configuration that trusts only the CA certificate in a file.
func withRootCA(t *testing.T, certificate string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", certificate)
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

// eventually polls a condition until it holds, or fails the test after ten seconds.
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

func TestTLSReloadsRenewedCertificate(t *testing.T) {
	certificate, key := certtest.SelfSigned(t)
	url, stop := start(t, "--tls-cert", certificate, "--tls-key", key)
	secure := strings.Replace(url, "http:", "https:", 1)
	for _, option := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON()} {
		if err := callAndChat(t.Context(), routechat.Config{TLS: withRootCA(t, certificate)}, secure, option); err != nil {
			t.Error(err)
		}
	}
	if err := callAndChat(t.Context(), routechat.Config{}, secure); err == nil {
		t.Error("a client that does not trust the certificate connected")
	}
	response, err := http.Get(url + "/")
	if err != nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("cleartext HTTP to the TLS port: got %v, %v, want 400", response, err)
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
	eventually(t, "the server uses the new certificate", func() bool {
		return callAndChat(t.Context(), routechat.Config{TLS: withRootCA(t, other)}, secure) == nil
	})
	http.DefaultClient.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestClientCARequiresClientCertificate(t *testing.T) {
	certificate, key := certtest.SelfSigned(t)
	clientCertificate, clientKey := certtest.SelfSigned(t)
	other, _ := certtest.SelfSigned(t)
	authorities := filepath.Join(t.TempDir(), "authorities.pem")
	write(t, authorities, "\xef\xbb\xbf"+read(t, clientCertificate)+read(t, other)) // The BOM must not hide the first one.
	url, stop := start(t, "--tls-cert", certificate, "--tls-key", key, "--client-ca", authorities)
	url = strings.Replace(url, "http:", "https:", 1)
	config := withRootCA(t, certificate)
	if err := callAndChat(t.Context(), routechat.Config{TLS: config}, url); err == nil {
		t.Error("a client without a certificate connected")
	}
	pair, err := tls.LoadX509KeyPair(clientCertificate, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{pair}
	if err := callAndChat(t.Context(), routechat.Config{TLS: config}, url); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestTokensAuthenticateAndReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	const token, hashed, added = "0123456789abcdef", "fedcba9876543210", "a-token-that-was-added"
	// printf %s fedcba9876543210 | sha256sum
	write(t, file, "# clients\n"+token+"\n\nsha256:"+hashOf(hashed)+"\n")
	url, stop := start(t, "--tokens", file)
	for _, protocol := range []connect.ClientOption{connect.WithClientOptions(), connect.WithGRPC(), connect.WithGRPCWeb()} {
		for _, test := range []struct {
			token string
			code  connect.Code
		}{{"", connect.CodeUnauthenticated}, {"0123456789abcdeX", connect.CodeUnauthenticated}, {added, connect.CodeUnauthenticated}, {token, 0}, {hashed, 0}} {
			err := callAndChat(t.Context(), routechat.Config{Token: test.token}, url, protocol)
			if test.code == 0 && err != nil || test.code != 0 && connect.CodeOf(err) != test.code {
				t.Errorf("with the token %q: got %v", test.token, err)
			}
		}
	}
	for path, want := range map[string]string{
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": "unauthenticated",
		"/routeguide.RouteGuide/ListFeatures":                       "unauthenticated",
		"/grpc.health.v1.Health/Check":                              "SERVING",
		// Paths that look like health, but belong to other handlers.
		"/grpc.reflection.v1.ServerReflection/grpc.health.v1.Health/Check":      "unauthenticated",
		"/grpc.reflection.v1alpha.ServerReflection/grpc.health.v1.Health/Check": "unauthenticated",
		"/routeguide.RouteGuide/grpc.health.v1.Health/Check":                    "unauthenticated",
		"/grpc.health.v1.Health/Check/":                                         "unauthenticated",
	} {
		if got := post(t, url+path); !strings.Contains(got, want) {
			t.Errorf("%s without a token: got %s, want %s", path, got, want)
		}
	}
	write(t, file, added+"\n")
	eventually(t, "the file is reloaded", func() bool {
		return callAndChat(t.Context(), routechat.Config{Token: added}, url) == nil
	})
	if err := callAndChat(t.Context(), routechat.Config{Token: token}, url); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a token that was removed from the file: got %v", err)
	}
	write(t, file, "short\n") // An invalid file does not replace the tokens in use.
	time.Sleep(1100 * time.Millisecond)
	if err := callAndChat(t.Context(), routechat.Config{Token: added}, url); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestInsecureFlagCombinationsAreUsageErrors(t *testing.T) {
	for name, args := range map[string][]string{
		"tokens in clear":         {"--listen", "0.0.0.0:0", "--tokens", "file"},
		"an admin port for all":   {"--listen", "127.0.0.1:0", "--admin", ":0"},
		"half of TLS":             {"--listen", "127.0.0.1:0", "--tls-cert", "file"},
		"a client CA without TLS": {"--listen", "127.0.0.1:0", "--client-ca", "file"},
		"no streams":              {"--listen", "127.0.0.1:0", "--max-streams", "0"},
	} {
		var usage *command.UsageError
		if err := run(t.Context(), append(args, "--store", "memory:"), io.Discard, io.Discard); !errors.As(err, &usage) {
			t.Errorf("%s: got %v, want a usage error", name, err)
		}
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
