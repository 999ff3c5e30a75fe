package access_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/routeguide/server/access"
)

func tokensIn(t *testing.T, text string) (*access.Tokens, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return access.NewTokens(path, slog.New(slog.DiscardHandler), "/open")
}

func TestAFileOfTokensThatMakesNoSense(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                              "no token",
		"# a comment\n\n":               "no token",
		"0123456789abcdef\nshort":       "line 2",
		"0123456789 0123456789":         "line 1",
		"sha256:0123":                   "line 1",
		strings.Repeat("x", 100_000):    "too long",
		"\n\nsha256:" + "zz01234567890": "line 3",
	} {
		if _, err := tokensIn(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want an error with %q", text, err, want)
		}
	}
	if _, err := access.NewTokens(filepath.Join(t.TempDir(), "missing"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file that is not there is taken")
	}
}

func TestWhoMayCall(t *testing.T) {
	t.Parallel()
	tokens, err := tokensIn(t, "# ours\n 0123456789abcdef \nsha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855\n")
	if err != nil {
		t.Fatal(err)
	}
	handler := tokens.Require(http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		response.WriteHeader(http.StatusNoContent)
	}))
	for _, test := range []struct {
		path, authorization string
		in                  bool
	}{
		{"/open", "", true},
		{"/open/more", "", false},
		{"/open/", "", false},
		{"//open", "", false},
		{"/closed", "", false},
		{"/closed", "Bearer 0123456789abcdef", true},
		{"/closed", "bearer  0123456789abcdef ", true},
		{"/closed", "Bearer ", true}, // Its hash is in the file, which is up to who wrote that.
		{"/closed", "Bearer 0123456789abcdeF", false},
		{"/closed", "Bearer 0123456789abcdef0", false},
		{"/closed", "Basic 0123456789abcdef", false},
		{"/closed", "0123456789abcdef", false},
		// The hash itself is no token.
		{"/closed", "Bearer sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855", false},
	} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://x"+test.path, nil)
		if test.authorization != "" {
			request.Header.Set("Authorization", test.authorization)
		}
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		if in := response.Code == http.StatusNoContent; in != test.in {
			t.Errorf("%s with %q: got %d, want in: %v", test.path, test.authorization, response.Code, test.in)
		}
	}
}
