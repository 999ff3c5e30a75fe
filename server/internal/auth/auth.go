// Package access says who may call a server: who shows a token that is in a file. It knows nothing of what
// is called.
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

// minTokenBytes is how long a token must be. One of 16 random characters cannot be guessed.
const minTokenBytes = 16

// maxTokenBytes is how long a token may be: no longer than headers are by default.
const maxTokenBytes = 64 << 10

// hashed precedes the SHA-256 of a token, in hexadecimal digits, in a file that shall not have the token.
const hashed = "sha256:"

// Tokens are the bearer tokens in a file. Its methods may be called concurrently.
type Tokens struct {
	file *reload.Files[[][sha256.Size]byte]
	open map[string]bool // paths that need no token
}

// NewTokens returns the tokens in a file: one a line in the syntax of RFC 6750, or its SHA-256 as sha256:<64 hexadecimal
// digits>; empty lines, those that begin with # and a byte order mark do not count. The file is read again when it has changed. The paths
// in open are for everyone.
func NewTokens(path string, logger *slog.Logger, open ...string) (*Tokens, error) {
	file, err := reload.New(func() ([][sha256.Size]byte, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		return parse(text)
	}, logger, path)
	if err != nil {
		return nil, err
	}
	tokens := &Tokens{file: file, open: make(map[string]bool)}
	for _, path := range open {
		tokens.open[path] = true
	}
	return tokens, nil
}

// parse returns the hashes of the tokens in a file.
func parse(file []byte) ([][sha256.Size]byte, error) {
	text, err := textfile.Decode(file)
	if err != nil {
		return nil, err
	}
	var hashes [][sha256.Size]byte
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		hash, there, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if there {
			hashes = append(hashes, hash)
		}
	}
	if len(hashes) == 0 {
		return nil, errors.New("there is no token in it, so nobody could come in")
	}
	return hashes, nil
}

// parseLine returns the hash of the token in a line, and whether there is one. No error shows a token.
func parseLine(line string) (hash [sha256.Size]byte, there bool, err error) {
	token := strings.TrimSpace(line)
	if strings.Contains(token, "\r") {
		return hash, false, errors.New("a carriage return alone ends no line: save the file with line ends of LF or CRLF")
	}
	if token == "" || strings.HasPrefix(token, "#") {
		return hash, false, nil
	}
	if digits, ok := strings.CutPrefix(token, hashed); ok {
		decoded, err := hex.DecodeString(digits)
		if err != nil || len(decoded) != sha256.Size {
			return hash, false, fmt.Errorf("want %s and %d hexadecimal digits", hashed, 2*sha256.Size)
		}
		return [sha256.Size]byte(decoded), true, nil
	}
	if err := credentials.CheckToken(token); err != nil {
		return hash, false, err
	}
	if len(token) < minTokenBytes {
		return hash, false, fmt.Errorf("the token is too short: want %d characters or more", minTokenBytes)
	}
	if len(token) > maxTokenBytes {
		return hash, false, fmt.Errorf("the token is too long: want %d characters or less", maxTokenBytes)
	}
	return sha256.Sum256([]byte(token)), true, nil
}

// Require returns a handler that answers requests without one of the tokens with UNAUTHENTICATED, in their
// protocol, and passes all others on to next.
func (t *Tokens) Require(next http.Handler) http.Handler {
	guarded := authn.NewMiddleware(func(_ context.Context, request authn.Request) (any, error) {
		return nil, t.check(request.Header().Get("Authorization"))
	}).Wrap(next)
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		// The whole path, and no other form of it: a handler may serve all that is below its own.
		if t.open[request.URL.Path] {
			next.ServeHTTP(response, request)
			return
		}
		guarded.ServeHTTP(response, request)
	})
}

// check returns an error unless there is a token in a header that is in the file.
func (t *Tokens) check(authorization string) error {
	kind, token, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(kind, "Bearer") {
		return authn.Errorf("this server needs a token: send the header Authorization: Bearer <token>")
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	known := 0
	for _, other := range t.file.Get() {
		known |= subtle.ConstantTimeCompare(hash[:], other[:])
	}
	if known == 0 {
		return authn.Errorf("the token is not one that this server knows")
	}
	return nil
}
