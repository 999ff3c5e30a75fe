package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/routeguide/internal/command"
)

func TestTokenFile(t *testing.T) {
	t.Parallel()
	const token = "az09-._~+/AZ=="
	path := filepath.Join(t.TempDir(), "token")
	for text, want := range map[string]string{
		token:                               "",
		"\xef\xbb\xbf" + token + "\r\n":     "",
		" " + token + "\r":                  "",
		"":                                  "want one token",
		`"` + token + `"`:                   "want one token",
		token + "\n" + token:                "want one token",
		"\xff\xfea\x00z\x000\x009\x00":      "line 1: it begins with a byte order mark of UTF-16",
		"a\x00z\x000\x009\x00\n":            "line 1: a zero byte",
		"sha256:" + strings.Repeat("0", 64): "want one token",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		config, err := (&accessFlags{Token: "@" + path}).config("http://localhost:1")
		if want == "" && (err != nil || config.Token != token) {
			t.Errorf("%q: got %q, %v", text, config.Token, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), token)) {
			t.Errorf("%q: got %v, want %q, and no token", text, err, want)
		}
	}
}

func TestTokenFlagWithInvalidTokenIsUsageError(t *testing.T) {
	t.Parallel()
	for _, token := range []string{`"abc"`, "a b", "a\n", "ä", "=="} {
		_, err := (&accessFlags{Token: token}).config("http://localhost:1")
		if _, ok := errors.AsType[*command.UsageError](err); !ok {
			t.Errorf("%q: got %v, want a usage error", token, err)
		}
	}
}
