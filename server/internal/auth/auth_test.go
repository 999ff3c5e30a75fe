package auth_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/routeguide/server/internal/auth"
)

const token = "0123456789abcdef"

func tokensIn(t *testing.T, text string) (*auth.Tokens, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return auth.NewTokens(path, slog.New(slog.DiscardHandler), "/open")
}

func TestNewTokensRefusesInvalidFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                              "no token",
		"# a comment\n\n":               "no token",
		"0123456789abcdef\nshort":       "line 2",
		"0123456789 0123456789":         "line 1",
		"sha256:0123":                   "line 1",
		strings.Repeat("x", 100_000):    "too long",
		"\n\nsha256:" + "zz01234567890": "line 3",
		// Damage that editors and shells cause.
		"# ours\r" + token + "\r":                  "line 1: a carriage return",
		token + "\r" + token:                       "line 1: a carriage return",
		token + "\n\"" + token + "\"":              "line 2: a token has only",
		"'" + token + "'":                          "line 1: a token has only",
		"token=" + token:                           "line 1: a token has only",
		"Bearer " + token:                          "line 1: a token has only",
		token + "\xa0":                             "line 1: a token has only",
		"\xff\xfe0\x001\x002\x003\x00\n\x00":       "line 1: it begins with a byte order mark of UTF-16",
		token + "\n0\x001\x002\x003\x00":           "line 2: a zero byte",
		token + "\n\xef\xbb\xbf" + token:           "line 2: a token has only",
		"sha256:" + strings.Repeat("0", 64) + "\"": "line 1: want sha256:",
		"SHA256:" + strings.Repeat("0", 64):        "line 1: a token has only",
	} {
		if _, err := tokensIn(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want an error with %q", text, err, want)
		} else if strings.Contains(err.Error(), token) {
			t.Errorf("%.40q: the error shows a token: %v", text, err)
		}
	}
	if _, err := auth.NewTokens(filepath.Join(t.TempDir(), "missing"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestRequire(t *testing.T) {
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
		allowed             bool
	}{
		{"/open", "", true},
		{"/open/more", "", false},
		{"/open/", "", false},
		{"//open", "", false},
		{"/closed", "", false},
		{"/closed", "Bearer 0123456789abcdef", true},
		{"/closed", "bearer  0123456789abcdef ", true},
		{"/closed", "Bearer ", true}, // The file has the hash of the empty token.
		{"/closed", "Bearer 0123456789abcdeF", false},
		{"/closed", "Bearer 0123456789abcdef0", false},
		{"/closed", "Basic 0123456789abcdef", false},
		{"/closed", "0123456789abcdef", false},
		// The hash is not a token.
		{"/closed", "Bearer sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855", false},
	} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://x"+test.path, nil)
		if test.authorization != "" {
			request.Header.Set("Authorization", test.authorization)
		}
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, request)
		if allowed := response.Code == http.StatusNoContent; allowed != test.allowed {
			t.Errorf("%s with %q: got %d, want allowed: %v", test.path, test.authorization, response.Code, test.allowed)
		}
	}
}

func TestNewTokensSkipsBOM(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"\xef\xbb\xbf" + token + "\r\n", "\xef\xbb\xbf# ours\r\n\r\n" + token, "az09-._~+/AZ0123==\n" + token} {
		tokens, err := tokensIn(t, text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if !isAllowed(tokens, token) {
			t.Errorf("%q: the token is refused", text)
		}
	}
}

// isAllowed returns whether a request with the token passes Require.
func isAllowed(tokens *auth.Tokens, token string) bool {
	request := httptest.NewRequest(http.MethodPost, "http://x/closed", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	response := httptest.NewRecorder()
	tokens.Require(http.HandlerFunc(func(response http.ResponseWriter, _ *http.Request) {
		response.WriteHeader(http.StatusNoContent)
	})).ServeHTTP(response, request)
	return response.Code == http.StatusNoContent
}

// An invalid file does not replace the tokens in use, and the log names the line.
func TestTokensSurviveReloadOfInvalidFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(token + "\n")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		tokens, err := auth.NewTokens(path, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		const other = "fedcba9876543210"
		for _, damaged := range []string{"\"" + other + "\"\n", "# ours\n" + other + "\r" + other, "\xff\xfef\x00"} {
			write(damaged)
			time.Sleep(2 * time.Second)
			if !isAllowed(tokens, token) {
				t.Errorf("%q: the previous token is refused", damaged)
			}
		}
		for _, want := range []string{"line 1: a token has only", "line 2: a carriage return", "line 1: it begins with a byte order mark of UTF-16"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, &log)
			}
		}
		write("\xef\xbb\xbf" + other)
		time.Sleep(2 * time.Second)
		if isAllowed(tokens, token) || !isAllowed(tokens, other) {
			t.Error("the tokens of the repaired file are not in use")
		}
	})
}
