// Package auth authenticates callers by bearer tokens from a file. It does not know the RPCs.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"connectrpc.com/authn"

	"example.com/routeguide/internal/credentials"
	"example.com/routeguide/internal/textfile"
	"example.com/routeguide/server/internal/reload"
)

const (
	// minTokenBytes is the shortest token, in bytes. 16 random characters cannot be guessed.
	minTokenBytes = 16
	// maxTokenBytes is the longest token, in bytes: the server's default limit of headers.
	maxTokenBytes = 64 << 10
	// hashPrefix marks a line that has the SHA-256 of a token, in hexadecimal, instead of the token.
	hashPrefix = "sha256:"
)

// Tokens are the bearer tokens in a file. Its methods may be called concurrently.
type Tokens struct {
	hashes      *reload.Files[[][sha256.Size]byte]
	publicPaths map[string]bool // paths that need no token
}

// NewTokens reads the tokens from a file: one on each line in the syntax of RFC 6750, or its SHA-256 as sha256:<64
// hexadecimal digits>. It ignores empty lines, comment lines that start with #, and a byte order mark. The file is
// reloaded when it changes. Requests for publicPaths need no token.
func NewTokens(path string, logger *slog.Logger, publicPaths ...string) (*Tokens, error) {
	hashes, err := reload.New(func() ([][sha256.Size]byte, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return parse(text)
	}, logger, path)
	if err != nil {
		return nil, err
	}
	tokens := &Tokens{hashes: hashes, publicPaths: make(map[string]bool)}
	for _, path := range publicPaths {
		tokens.publicPaths[path] = true
	}
	return tokens, nil
}

// parse returns the hashes of the tokens in a file. Errors name the line and never contain a token.
func parse(file []byte) ([][sha256.Size]byte, error) {
	text, err := textfile.Decode(file)
	if err != nil {
		return nil, err
	}
	var hashes [][sha256.Size]byte
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		hash, ok, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if ok {
			hashes = append(hashes, hash)
		}
	}
	if len(hashes) == 0 {
		return nil, errors.New("no token in the file: all calls would be refused")
	}
	return hashes, nil
}

// parseLine returns the hash of the token in a line, and false for an empty line or a comment.
func parseLine(line string) (hash [sha256.Size]byte, ok bool, err error) {
	token := strings.TrimSpace(line)
	if strings.Contains(token, "\r") {
		return hash, false, errors.New("a carriage return without a line feed (save the file with LF or CRLF)")
	}
	if token == "" || strings.HasPrefix(token, "#") {
		return hash, false, nil
	}
	if digits, ok := strings.CutPrefix(token, hashPrefix); ok {
		decoded, err := hex.DecodeString(digits)
		if err != nil || len(decoded) != sha256.Size {
			return hash, false, fmt.Errorf("want %s and %d hexadecimal digits", hashPrefix, 2*sha256.Size)
		}
		return [sha256.Size]byte(decoded), true, nil
	}
	if err := credentials.CheckToken(token); err != nil {
		return hash, false, err
	}
	if len(token) < minTokenBytes {
		return hash, false, fmt.Errorf("the token is too short: want at least %d characters", minTokenBytes)
	}
	if len(token) > maxTokenBytes {
		return hash, false, fmt.Errorf("the token is too long: want at most %d characters", maxTokenBytes)
	}
	return sha256.Sum256([]byte(token)), true, nil
}

// Require returns middleware that answers a request without a valid token with UNAUTHENTICATED, in the protocol of the
// request.
func (t *Tokens) Require(next http.Handler) http.Handler {
	authenticated := authn.NewMiddleware(func(_ context.Context, request authn.Request) (any, error) {
		return nil, t.check(request.Header().Get("Authorization"))
	}).Wrap(next)
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		// Compare the exact path: a handler may serve all paths below its own.
		if t.publicPaths[request.URL.Path] {
			next.ServeHTTP(response, request)
			return
		}
		authenticated.ServeHTTP(response, request)
	})
}

// check returns an error unless an Authorization header has a token from the file. It compares in constant time.
func (t *Tokens) check(authorization string) error {
	kind, token, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(kind, "Bearer") {
		return authn.Errorf("no bearer token: send the header Authorization: Bearer <token>")
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	known := 0
	for _, other := range t.hashes.Get() {
		known |= subtle.ConstantTimeCompare(hash[:], other[:])
	}
	if known == 0 {
		return authn.Errorf("unknown bearer token")
	}
	return nil
}
